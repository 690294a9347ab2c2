//! Messages between processes, generated from `proto/wire/*.proto`, and their conversion to and from the types of this
//! crate. Only clients and services use wire types.

pub mod ingest;
pub mod problem;
pub mod push;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use tonic::{Response, Status};

use crate::problem::{Code, Problem};

/// A message as bytes.
pub fn bytes_of(message: &impl prost::Message) -> Vec<u8> {
    message.encode_to_vec()
}

/// A message from its bytes.
pub fn message_of<M: prost::Message + Default>(bytes: &[u8]) -> Result<M, Problem> {
    M::decode(bytes).map_err(|e| problem::malformed(&e.to_string()))
}

impl leaf::Json {
    /// A value as JSON.
    pub fn of(value: &impl Serialize) -> Result<Self, Problem> {
        let json = serde_json::to_vec(value).map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
        Ok(Self { json: json.into() })
    }

    /// The value.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        serde_json::from_slice(&self.json).map_err(|e| problem::malformed(&e.to_string()))
    }

    /// A value as the answer of a call.
    pub fn response(value: &impl Serialize) -> Result<Response<Self>, Status> {
        Ok(Response::new(Self::of(value)?))
    }
}

impl leaf::JsonWithBytes {
    /// A value, whose field `bytes` is not part of its JSON.
    pub fn of(value: &impl Serialize, bytes: Bytes) -> Result<Self, Problem> {
        let value = Some(leaf::Json::of(value)?);
        Ok(Self { value, bytes })
    }

    /// The value without its field `bytes`, and that field.
    pub fn decode<T: DeserializeOwned>(self) -> Result<(T, Bytes), Problem> {
        let value = ingest::require(self.value, "the value")?;
        Ok((value.decode()?, self.bytes))
    }
}

/// Messages of the public API, among them errors.
pub mod v1 {
    #![allow(missing_docs, clippy::all, reason = "generated; the .proto files document them")]
    tonic::include_proto!("rachis.v1");
}

/// The services of a leaf.
pub mod leaf {
    pub use v1::*;
    /// Version 1.
    pub mod v1 {
        #![allow(missing_docs, clippy::all, reason = "generated; the .proto files document them")]
        tonic::include_proto!("rachis.leaf.v1");
    }
}

/// The services of a tailer.
pub mod tailer {
    pub use v1::*;
    /// Version 1.
    pub mod v1 {
        #![allow(missing_docs, clippy::all, reason = "generated; the .proto files document them")]
        tonic::include_proto!("rachis.tailer.v1");
    }
}

/// The service of every node.
pub mod node {
    pub use v1::*;
    /// Version 1.
    pub mod v1 {
        #![allow(missing_docs, clippy::all, reason = "generated; the .proto files document them")]
        tonic::include_proto!("rachis.node.v1");
    }
}

/// The descriptors of all messages and services, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rachis.bin"));
