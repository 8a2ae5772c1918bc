//! WebSocket shards of a conduit.
