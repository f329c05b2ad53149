//! The IKEv1 session in virtual time.
