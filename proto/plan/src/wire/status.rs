//! Converts path tables, documents and dead letters to and from their wire form.

use std::collections::BTreeMap;

use proto::{
    Problem,
    wire::{leaf as wire, problem::malformed},
};

use super::{address, path, undecodable};
use crate::{
    Kinds, PathKinds,
    scan::{DeadLetter, Document},
};

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
