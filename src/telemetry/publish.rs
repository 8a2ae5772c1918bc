//! Publishing state in `watch` values.

use tokio::sync::watch;

/// Publishes a value unless it equals the published one, so that readers wake for changes only.
pub trait Publish<T> {
    /// Publishes a value; returns whether it is a new one.
    fn publish(&self, value: T) -> bool
    where
        T: PartialEq;

    /// Publishes a copy of a value; returns whether it is a new one. Copies only then.
    fn publish_copy(&self, value: &T) -> bool
    where
        T: PartialEq + Clone;
}

impl<T> Publish<T> for watch::Sender<T> {
    fn publish(&self, value: T) -> bool
    where
        T: PartialEq,
    {
        self.send_if_modified(|published| {
            let is_new = *published != value;
            if is_new {
                *published = value;
            }
            is_new
        })
    }

    fn publish_copy(&self, value: &T) -> bool
    where
        T: PartialEq + Clone,
    {
        self.send_if_modified(|published| {
            let is_new = published != value;
            if is_new {
                published.clone_from(value);
            }
            is_new
        })
    }
}
