//! `messaging`: limits of messages, inboxes and conversations.

use std::time::Duration;

use caxton_events::limits::MESSAGE_CONTENT_BYTES_MAX;

use super::setting::{DAY, millis, section, whole};
use super::units::Bytes;

section! {
    /// `messaging`: limits of messages, inboxes and conversations.
    pub struct Messaging {
        /// Largest content of a message, in bytes; then 413.
        pub max_message_size: Bytes = Bytes(MESSAGE_CONTENT_BYTES_MAX), whole(1, MESSAGE_CONTENT_BYTES_MAX as u64);
        /// Messages in one inbox that its agent is not done with; then 429.
        pub queue_size: u64 = 1_000_000, whole(1, 1 << 40);
        /// Requests that wait for the message router; then 503.
        pub max_pending_requests: usize = 10_000, whole(1, 10_000_000);
        /// A conversation ends after so long without a message, unless it was opened with another time.
        pub conversation_ttl: Duration = Duration::from_hours(24), millis(1_000, 366 * DAY);
        /// A conversation ends after so long altogether, unless it was opened with another time.
        pub conversation_lifetime: Duration = Duration::from_hours(7 * 24), millis(1_000, 3_660 * DAY);
        /// Agents of a conversation, unless it was opened with another number; then 409.
        pub max_participants: u32 = 100, whole(2, 1_000_000);
        /// Messages of a conversation, unless it was opened with another number; then 409. Unset: no limit.
        pub max_messages: Option<u32> = None, whole(1, 4_294_967_295);
    }
}
