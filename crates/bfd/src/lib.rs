//! Bidirectional Forwarding Detection (RFC 5880, RFC 5881) as a pure machine.
