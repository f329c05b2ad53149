//! What IKE hands to ESP: a Child SA with its suite, keys, selectors and limits, and the changes to
//! it in the order in which they must be made.

mod child;
mod selector;

pub use child::{
    ChildKeys, ChildLabel, ChildSa, ChildSuite, DirectionKeys, Limits, Path, RESERVE, SaChange, SaId, Spi,
};
pub use selector::TrafficSelector;
