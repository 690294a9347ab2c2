//! The encoding of a push as a record value in the push topic of its collection: a version byte, then a message.

use bytes::Bytes;
use prost::Message as _;

use super::{leaf, tailer};
use crate::record::RequestKey;

const VERSION: u8 = 1;

/// Encodes a push as a record value.
pub fn encode(request: leaf::Request, items: Vec<Bytes>) -> Vec<u8> {
    let push = tailer::PushRecord {
        request: Some(request),
        items,
    };
    let mut payload = Vec::with_capacity(1 + push.encoded_len());
    payload.push(VERSION);
    push.encode_raw(&mut payload);
    payload
}

/// Decodes a record value; `None` if it is not a push.
pub fn decode(payload: &Bytes) -> Option<(RequestKey, Vec<Bytes>)> {
    let (&VERSION, _) = payload.split_first()? else {
        return None;
    };
    let push = tailer::PushRecord::decode(payload.slice(1..)).ok()?;
    Some((push.request?.try_into().ok()?, push.items))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_round_trips_and_other_values_are_not_decoded() {
        let request = RequestKey {
            key: "k".into(),
            body: 7,
        };
        let items = vec![Bytes::from_static(b"{}"), Bytes::new()];
        assert_eq!(
            decode(&encode(request.clone().into(), items.clone()).into()),
            Some((request, items))
        );
        for other in ["", "{}", "\u{1}\u{1}", "\u{1}"] {
            assert_eq!(decode(&Bytes::from_static(other.as_bytes())), None, "{other:?}");
        }
    }
}
