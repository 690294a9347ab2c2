//! Token: the tokenizer for tantivy. It produces the same tokens that a search compares everywhere else.

use plan::token::{Tokens, lower, tokens};
use tantivy::tokenizer::{Token, TokenStream, Tokenizer};

/// Bytes of the longest token in postings. A search reads the raw bytes of a document with a longer one.
pub(super) const TOKEN_BYTES_MAX: usize = 60_000;

/// Whether a text has a token that is too long for postings.
pub(super) fn has_oversized_token(text: &str) -> bool {
    text.len() > TOKEN_BYTES_MAX && tokens(text).any(|token| token.len() > TOKEN_BYTES_MAX)
}

/// Cuts a text into tokens.
#[derive(Debug, Clone, Default)]
pub(super) struct WordTokenizer {
    token: Token,
}

impl Tokenizer for WordTokenizer {
    type TokenStream<'a> = WordStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream<'a> {
        self.token.reset();
        WordStream {
            text,
            rest: tokens(text),
            token: &mut self.token,
        }
    }
}

/// The tokens of a text.
pub(super) struct WordStream<'a> {
    text: &'a str,
    rest: Tokens<'a>,
    token: &'a mut Token,
}

impl TokenStream for WordStream<'_> {
    fn advance(&mut self) -> bool {
        let Some(raw) = self.rest.next_raw() else {
            return false;
        };
        self.token.position = self.token.position.wrapping_add(1);
        self.token.offset_to = self.text.len() - self.rest.rest().len();
        self.token.offset_from = self.token.offset_to - raw.len();
        self.token.text.clear();
        self.token.text.push_str(&lower(raw));
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}
