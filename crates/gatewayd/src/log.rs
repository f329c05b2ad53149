//! What a person sees: one sentence for each change, with the connection as a field.

use gateway::{GatewayEvent, Severity};
use tracing::{debug, info, warn};

/// Tells of an event. No event holds a secret.
pub(crate) fn event(event: &GatewayEvent) {
    let GatewayEvent { connection, severity, name, text } = event;
    match (severity, connection) {
        (Severity::Debug, Some(connection)) => debug!(connection = %connection, event = name, "{text}"),
        (Severity::Debug, None) => debug!(event = name, "{text}"),
        (Severity::Info, Some(connection)) => info!(connection = %connection, event = name, "{text}"),
        (Severity::Info, None) => info!(event = name, "{text}"),
        (Severity::Warning, Some(connection)) => warn!(connection = %connection, event = name, "{text}"),
        (Severity::Warning, None) => warn!(event = name, "{text}"),
    }
}
