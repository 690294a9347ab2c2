//! Token: the limit for tokens in postings.

use plan::token::tokens;

/// Bytes of the longest token in postings. A search reads the raw bytes of a document with a longer one.
pub(super) const TOKEN_BYTES_MAX: usize = 60_000;

/// Whether a text has a token that is too long for postings.
pub(super) fn has_oversized_token(text: &str) -> bool {
    text.len() > TOKEN_BYTES_MAX && tokens(text).any(|token| token.len() > TOKEN_BYTES_MAX)
}
