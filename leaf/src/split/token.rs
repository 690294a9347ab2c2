//! Token: the limit for tokens in postings.

use plan::token::tokens;

/// Bytes of the longest token in postings. A search reads the raw bytes of a document with a longer one.
pub(super) const TOKEN_BYTES_MAX: usize = 60_000;

/// Whether a text has a token that is too long for postings.
pub(super) fn has_oversized_token(text: &str) -> bool {
    // In lower case, some letters take three bytes instead of two.
    text.len() > TOKEN_BYTES_MAX / 2 && tokens(text).any(|token| token.len() > TOKEN_BYTES_MAX)
}
