//! Making Twitch match the file.
