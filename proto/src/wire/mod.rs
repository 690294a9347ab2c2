//! What crosses between processes, as generated from `proto/wire/*.proto`, and its way to the types of this crate and
//! back. Nothing but clients and services names it.

pub mod ingest;
pub mod problem;
pub mod push;

/// Errors.
pub mod v1 {
    #![allow(missing_docs, clippy::all, reason = "generated; the .proto files say what each is")]
    tonic::include_proto!("rachis.v1");
}

/// A leaf's services.
pub mod leaf {
    pub use v1::*;
    /// Version 1.
    pub mod v1 {
        #![allow(missing_docs, clippy::all, reason = "generated; the .proto files say what each is")]
        tonic::include_proto!("rachis.leaf.v1");
    }
}

/// A tailer's services.
pub mod tailer {
    pub use v1::*;
    /// Version 1.
    pub mod v1 {
        #![allow(missing_docs, clippy::all, reason = "generated; the .proto files say what each is")]
        tonic::include_proto!("rachis.tailer.v1");
    }
}

/// Every node's service.
pub mod node {
    pub use v1::*;
    /// Version 1.
    pub mod v1 {
        #![allow(missing_docs, clippy::all, reason = "generated; the .proto files say what each is")]
        tonic::include_proto!("rachis.node.v1");
    }
}

/// All of it, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rachis.bin"));
