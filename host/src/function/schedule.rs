//! When schedules fire.

mod expression;

pub use expression::{Expression, InvalidExpression, InvalidZone, Zone};
