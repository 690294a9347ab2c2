//! Converts documents and the status of fields, shards and dead letters to and from their wire form.

use std::collections::BTreeMap;

use proto::{
    Problem,
    wire::{
        ingest::{self as wire_ingest, require, vector},
        leaf as wire,
        problem::malformed,
    },
};

use super::{address, path, undecodable};
use crate::{
    Kinds, PathKinds,
    scan::{DeadLetter, Document, PathStatus, ShardStatus, SplitStatus},
};

/// The values of [`PathStatus::indexed`].
const INDEXED: [&str; 3] = ["columns", "text", "raw"];

impl From<&PathKinds> for wire::Paths {
    fn from(paths: &PathKinds) -> Self {
        let (spellings, kinds) = paths
            .paths
            .iter()
            .map(|(path, kinds)| (path.to_string(), u32::from(kinds.0)))
            .unzip();
        Self {
            paths: spellings,
            kinds,
            overflow: paths.overflow,
        }
    }
}

impl TryFrom<wire::Paths> for PathKinds {
    type Error = Problem;
    fn try_from(message: wire::Paths) -> Result<Self, Problem> {
        if message.paths.len() != message.kinds.len() {
            return Err(malformed("the number of paths differs from the number of kinds"));
        }
        let pair = |(text, kinds): (&String, &u32)| {
            Ok((path(text)?, Kinds(u16::try_from(*kinds).map_err(|e| undecodable(&e))?)))
        };
        let paths = message
            .paths
            .iter()
            .zip(&message.kinds)
            .map(pair)
            .collect::<Result<BTreeMap<_, _>, Problem>>()?;
        Ok(Self {
            paths,
            overflow: message.overflow,
        })
    }
}

impl From<Document> for wire::Document {
    fn from(document: Document) -> Self {
        Self {
            address: document.address.to_string(),
            id: document.id,
            bytes: document.bytes,
            json: document.json,
        }
    }
}

impl TryFrom<wire::Document> for Document {
    type Error = Problem;
    fn try_from(message: wire::Document) -> Result<Self, Problem> {
        Ok(Self {
            address: address(&message.address)?,
            id: message.id,
            bytes: message.bytes,
            json: message.json,
        })
    }
}

impl From<PathStatus> for wire::Field {
    fn from(field: PathStatus) -> Self {
        Self {
            path: field.path.to_string(),
            kinds: field.kinds.0.into(),
            documents: field.documents,
            indexed: field.indexed.to_owned(),
            sample: field.sample,
        }
    }
}

impl TryFrom<wire::Field> for PathStatus {
    type Error = Problem;
    fn try_from(message: wire::Field) -> Result<Self, Problem> {
        Ok(Self {
            path: path(&message.path)?,
            kinds: Kinds(u16::try_from(message.kinds).map_err(|e| undecodable(&e))?),
            documents: message.documents,
            indexed: require(
                INDEXED.into_iter().find(|indexed| *indexed == message.indexed),
                "how the field is indexed",
            )?,
            sample: message.sample,
        })
    }
}

impl From<ShardStatus> for wire::ShardStatus {
    fn from(status: ShardStatus) -> Self {
        let split = |split: SplitStatus| wire::Split {
            id: split.id,
            on_disk: split.place == "disk",
            generation: split.generation,
            documents: split.documents,
            gone: split.deleted,
            bytes: split.bytes,
            paths: split.paths,
        };
        Self {
            shard: Some(status.shard.into()),
            positions: wire_ingest::positions(&status.positions),
            outcomes: Some(status.outcomes.into()),
            tail: status.tail,
            splits: status.splits.into_iter().map(split).collect(),
            bytes: status.bytes,
        }
    }
}

impl TryFrom<wire::ShardStatus> for ShardStatus {
    type Error = Problem;
    fn try_from(message: wire::ShardStatus) -> Result<Self, Problem> {
        let split = |split: wire::Split| SplitStatus {
            id: split.id,
            place: if split.on_disk { "disk" } else { "memory" },
            generation: split.generation,
            documents: split.documents,
            deleted: split.gone,
            bytes: split.bytes,
            paths: split.paths,
        };
        Ok(Self {
            shard: wire_ingest::shard(message.shard)?,
            positions: vector(message.positions)?,
            outcomes: require(message.outcomes, "the outcomes")?.into(),
            tail: message.tail,
            splits: message.splits.into_iter().map(split).collect(),
            bytes: message.bytes,
        })
    }
}

impl From<DeadLetter> for wire::DeadLetter {
    fn from(letter: DeadLetter) -> Self {
        Self {
            address: letter.address.to_string(),
            ingested_ms: letter.ingested_ms,
            code: letter.code,
            detail: letter.detail,
            bytes: letter.bytes,
            length: letter.length,
        }
    }
}

impl TryFrom<wire::DeadLetter> for DeadLetter {
    type Error = Problem;
    fn try_from(message: wire::DeadLetter) -> Result<Self, Problem> {
        Ok(Self {
            address: address(&message.address)?,
            ingested_ms: message.ingested_ms,
            code: message.code,
            detail: message.detail,
            bytes: message.bytes,
            length: message.length,
        })
    }
}
