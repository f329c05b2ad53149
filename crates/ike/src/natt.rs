//! NAT traversal, the parts that both versions share (RFC 3947, RFC 3948, RFC 7296 §2.23).

use std::net::{IpAddr, SocketAddr};

/// Four zero bytes in front of IKE messages on the port that ESP shares (RFC 3948 §2.2).
pub(crate) const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// The one byte of a NAT keepalive (RFC 3948 §2.3).
pub(crate) const KEEPALIVE: [u8; 1] = [0xff];

/// The IKE message in the payload of a datagram that came to the NAT traversal port; `None` for keepalives and ESP.
pub(crate) fn strip_marker(payload: &[u8]) -> Option<&[u8]> {
    payload.strip_prefix(&NON_ESP_MARKER)
}

/// Address and port as the NAT detection hashes take them.
pub(crate) fn address_bytes(address: SocketAddr) -> Vec<u8> {
    let mut bytes = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    bytes.extend_from_slice(&address.port().to_be_bytes());
    bytes
}
