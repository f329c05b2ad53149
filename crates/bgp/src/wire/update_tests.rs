//! UPDATE messages: what is written comes back, and what is malformed gets the answer of RFC 7606.

use super::*;
