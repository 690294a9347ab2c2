//! A push as the value of a record in the topic of its collection: one byte that says the version, then a message.

use bytes::Bytes;
use prost::Message as _;

use super::{leaf, tailer};
use crate::record::RequestKey;

const VERSION: u8 = 1;

/// The value of the record.
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

/// The push in a record's value, if that is one.
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
    fn a_push_reads_back_and_what_is_none_is_none() {
        let request = RequestKey {
            key: "k".into(),
            body: 7,
        };
        let items = vec![Bytes::from_static(b"{}"), Bytes::new()];
        assert_eq!(
            decode(&encode(request.clone().into(), items.clone()).into()),
            Some((request, items))
        );
        for none in ["", "{}", "\u{1}\u{1}", "\u{1}"] {
            assert_eq!(decode(&Bytes::from_static(none.as_bytes())), None, "{none:?}");
        }
    }
}
