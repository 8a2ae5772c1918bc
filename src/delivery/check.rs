//! Problems that would keep sinks from working, found without starting them, such as folders that do not exist.

use std::path::Path;

use futures_util::future::BoxFuture;

use super::FileOptions;
use super::make::{SinkError, make, selector};
#[cfg(feature = "nats")]
use super::sink::Nats;
use super::sink::{Http, not_a_file};
use super::{DeliveryOptions, SinkKind, SinkOptions};
use crate::auth::Outward;
use crate::model::route::SinkName;
use crate::model::secret::Secret;

/// Finds what would keep sinks from working, without touching anything.
pub fn check_sinks(sinks: &[SinkOptions], options: &DeliveryOptions) -> Vec<SinkError> {
    sinks.iter().filter_map(|sink| check(sink, options).err()).collect()
}

/// Connects to the receiver of each sink that has one, all at once, and sends nothing: the address, or why not.
pub async fn try_connections(
    sinks: &[SinkOptions],
    options: &DeliveryOptions,
    outward: &Outward,
) -> Vec<(SinkName, Result<String, String>)> {
    let tries = sinks.iter().filter_map(|sink| {
        let reach = |url: Result<reqwest::Url, String>| -> BoxFuture<'_, Result<String, String>> {
            Box::pin(async move { outward.reach(&url?).await })
        };
        // The text of a URL may be secret.
        let parsed = |url: &Secret| {
            reqwest::Url::parse(url.expose()).map_err(|_| "`url` is not an address".to_owned())
        };
        let outcome = match &sink.kind {
            SinkKind::Http(http) => {
                let made = Http::new(http.clone(), options.http.clone());
                reach(made.map(|http| http.base().clone()).map_err(|error| error.to_string()))
            }
            #[cfg(feature = "nats")]
            SinkKind::Nats(nats) => {
                let made = Nats::new(sink.name.clone(), nats.clone(), sink.format, options.tls.clone());
                Box::pin(async move { made.map_err(|error| error.to_string())?.try_connect().await })
            }
            SinkKind::Mqtt(mqtt) => reach(parsed(&mqtt.url)),
            SinkKind::Redis(redis) => reach(parsed(&redis.url)),
            #[cfg(not(feature = "nats"))]
            SinkKind::Nats(_) => return None,
            SinkKind::Stdout | SinkKind::File(_) | SinkKind::Command(_) => return None,
        };
        Some(async move { (sink.name.clone(), outcome.await) })
    });
    futures_util::future::join_all(tries).await
}

fn check(sink: &SinkOptions, options: &DeliveryOptions) -> Result<(), SinkError> {
    selector(sink)?;
    let name = sink.name.clone();
    match &sink.kind {
        SinkKind::Stdout => Ok(()),
        SinkKind::File(FileOptions { path, .. }) => {
            let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if !folder.is_dir() {
                return Err(SinkError::NoFolder { name, folder: folder.to_owned() });
            }
            match not_a_file(path) {
                Some(message) => Err(SinkError::Make { name, message }),
                None => Ok(()),
            }
        }
        SinkKind::Command(_)
        | SinkKind::Http(_)
        | SinkKind::Nats(_)
        | SinkKind::Mqtt(_)
        | SinkKind::Redis(_) => make(sink, options).map(drop),
    }
}
