//! What a statement becomes, and that what it becomes gives the answer that its user means.

mod world;

mod answers;
mod cases;
mod refusals;
mod texts;
