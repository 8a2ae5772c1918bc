//! Outgoing connections: CA certificates, proxies, DNS and time limits, the same for HTTP and WebSockets.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::{fmt, io};

use futures_util::future::BoxFuture;
use http::{Method, Request, StatusCode, Uri, header};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::{SocksV4, SocksV5};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower_service::Service;

use super::http::{CONNECT_LIMIT, HttpError, Roots, build_client, tls_with};
use super::proxy::{Proxies, Proxy};
use crate::model::connect::{address, broke, cannot_connect, place};

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection below TLS and WebSocket: TCP, or a tunnel.
pub struct Connection(Box<dyn Io>);

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, slices)
    }
}

/// Factory for outgoing connections; cheap to clone.
#[derive(Clone, Debug)]
pub struct Outward {
    user_agent: Arc<str>,
    client: reqwest::Client,
    tls: Arc<rustls::ClientConfig>,
    proxies: Proxies,
    /// Reason for having no CA certificates. `None` if there are some.
    no_certificates: Option<Arc<str>>,
}

impl Outward {
    /// Uses the CA certificates of this machine and the proxies of the environment.
    ///
    /// # Errors
    /// A variable is not the address of a proxy, or libraries cannot be set up.
    pub fn from_environment(user_agent: &str) -> Result<Self, HttpError> {
        let proxies = Proxies::from_environment().map_err(HttpError::Proxy)?;
        let roots = Roots::load();
        let outward = Self::new(user_agent, tls_with(roots.store)?, proxies)?;
        Ok(Self { no_certificates: roots.problem.map(Into::into), ..outward })
    }

    /// # Errors
    /// The HTTP library cannot be set up.
    pub fn new(user_agent: &str, tls: rustls::ClientConfig, proxies: Proxies) -> Result<Self, HttpError> {
        let client = build_client(user_agent, tls.clone(), &proxies)?;
        Ok(Self { user_agent: user_agent.into(), client, tls: Arc::new(tls), proxies, no_certificates: None })
    }

    /// Returns the HTTP client. It follows no redirects, to keep the token from other hosts.
    pub fn client(&self) -> reqwest::Client {
        self.client.clone()
    }

    /// Returns another HTTP client, which shares no connections with [`Self::client`].
    ///
    /// # Errors
    /// The HTTP library cannot be set up.
    pub fn separate_client(&self) -> Result<reqwest::Client, HttpError> {
        build_client(&self.user_agent, (*self.tls).clone(), &self.proxies)
    }

    pub fn tls(&self) -> &Arc<rustls::ClientConfig> {
        &self.tls
    }

    pub fn proxies(&self) -> &Proxies {
        &self.proxies
    }

    /// Fails if one of these URLs needs CA certificates and there are none.
    ///
    /// # Errors
    /// [`HttpError::NoCertificates`].
    pub fn require_certificates<'a>(&self, urls: impl IntoIterator<Item = &'a str>) -> Result<(), HttpError> {
        let encrypted = |url: &str| url.starts_with("https:") || url.starts_with("wss:");
        match &self.no_certificates {
            Some(why) if urls.into_iter().any(encrypted) => {
                Err(HttpError::NoCertificates { why: why.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// Connects to the host of a URL, with TLS if the URL asks for it, closes the connection and returns the address.
    /// Connects to brokers without a proxy, as their clients do.
    ///
    /// # Errors
    /// A sentence with both addresses.
    pub async fn reach(&self, url: &reqwest::Url) -> Result<String, String> {
        let (port, encrypted) = match url.scheme() {
            "https" => (443, true),
            "mqtt" => (1883, false),
            "mqtts" => (8883, true),
            "redis" => (6379, false),
            "rediss" => (6379, true),
            _ => (80, false),
        };
        let host = url.host_str().ok_or("`url` has no host")?;
        let to = address(host, url.port().unwrap_or(port));
        let web = matches!(url.scheme(), "http" | "https");
        let proxy = self.proxies.of_url(url).filter(|_| web).map(ToString::to_string);
        let route = Route { to: to.clone(), proxy };
        // Path, query and credentials may be secret, and are not needed.
        let uri = format!("{}://{to}/", url.scheme()).parse::<Uri>().map_err(|error| route.failed(&error))?;
        let connection = match web {
            true => self.connect(&uri).await?,
            false => within_limit(direct(route.clone()), &route).await?,
        };
        if encrypted {
            let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(name).map_err(|error| route.failed(&error))?;
            let tls = tokio_rustls::TlsConnector::from(Arc::clone(&self.tls));
            let connected = tokio::time::timeout(CONNECT_LIMIT, tls.connect(name, connection)).await;
            let limit = CONNECT_LIMIT.as_secs();
            let connected =
                connected.map_err(|_| route.refused(&format!("TLS took longer than {limit} seconds")))?;
            connected.map_err(|error| route.failed(&error))?;
        }
        Ok(place(&to, route.proxy.as_deref()))
    }

    /// Returns why a request got no response, as a sentence.
    pub fn explain(&self, error: &reqwest::Error) -> String {
        explain(error, &self.proxies)
    }

    /// Connects to the host of a URL, through a proxy if one is set for it.
    ///
    /// # Errors
    /// A sentence with both addresses.
    pub fn connect(&self, uri: &Uri) -> BoxFuture<'static, Result<Connection, String>> {
        let scheme = uri.scheme_str().unwrap_or("wss");
        let Some(host) = uri.host() else {
            return Box::pin(std::future::ready(Err("the address has no host".to_owned())));
        };
        let encrypted = matches!(scheme, "wss" | "https");
        let to = address(host, uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 }));
        let (proxy, tls) = (self.proxies.of(scheme, host).cloned(), Arc::clone(&self.tls));
        let route = Route { to, proxy: proxy.as_ref().map(ToString::to_string) };
        Box::pin(async move {
            let attempt: BoxFuture<'static, Result<Connection, String>> = match proxy {
                None => Box::pin(direct(route.clone())),
                Some(proxy) => Box::pin(proxied(proxy, route.clone(), tls)),
            };
            within_limit(attempt, &route).await
        })
    }
}

fn boxed(io: impl Io + 'static) -> Connection {
    Connection(Box::new(io))
}

/// Builds a connector that resolves names and connects as the HTTP client does: IPv6 and IPv4 side by side.
fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    // Pongs are small and must not wait.
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_LIMIT));
    connector
}

/// Addresses of a connection, for messages.
#[derive(Clone)]
struct Route {
    to: String,
    proxy: Option<String>,
}

impl Route {
    fn failed(&self, error: &(dyn Error + 'static)) -> String {
        cannot_connect(&self.to, self.proxy.as_deref(), error)
    }

    fn refused(&self, why: &str) -> String {
        format!("cannot connect to {}: {why}", place(&self.to, self.proxy.as_deref()))
    }
}

async fn tcp(address: String, route: Route) -> Result<TcpStream, String> {
    let uri = format!("http://{address}/").parse::<Uri>().map_err(|error| route.failed(&error))?;
    let connected = connector().call(uri).await;
    Ok(connected.map_err(|error| route.failed(&error))?.into_inner())
}

async fn within_limit(
    attempt: impl Future<Output = Result<Connection, String>>,
    route: &Route,
) -> Result<Connection, String> {
    let limited = tokio::time::timeout(CONNECT_LIMIT, attempt).await;
    limited
        .unwrap_or_else(|_| Err(route.refused(&format!("no answer in {} seconds", CONNECT_LIMIT.as_secs()))))
}

async fn direct(route: Route) -> Result<Connection, String> {
    Ok(boxed(tcp(route.to.clone(), route).await?))
}

async fn proxied(proxy: Proxy, route: Route, tls: Arc<rustls::ClientConfig>) -> Result<Connection, String> {
    let uri = proxy.uri().ok_or_else(|| route.refused("the proxy has no address"))?;
    match proxy.scheme() {
        "socks5" | "socks5h" => {
            let mut socks = SocksV5::new(uri, connector());
            if let Some((user, password)) = proxy.user() {
                socks = socks.with_auth(user.to_owned(), password.to_owned());
            }
            let target = socks_target(proxy.clone(), route.clone()).await?;
            let connected = socks.call(target).await;
            connected.map(|io| boxed(io.into_inner())).map_err(|error| route.failed(&error))
        }
        "socks4" | "socks4a" => {
            let target = socks_target(proxy.clone(), route.clone()).await?;
            let connected = SocksV4::new(uri, connector()).call(target).await;
            connected.map(|io| boxed(io.into_inner())).map_err(|error| route.failed(&error))
        }
        scheme => {
            let encrypted = scheme == "https";
            let stream = tcp(address(proxy.host(), proxy.port()), route.clone()).await?;
            let stream = if encrypted {
                let server =
                    ServerName::try_from(proxy.host().to_owned()).map_err(|error| route.failed(&error))?;
                let connected = tokio_rustls::TlsConnector::from(tls).connect(server, stream).await;
                boxed(connected.map_err(|error| route.failed(&error))?)
            } else {
                boxed(stream)
            };
            tunnel(stream, proxy, route).await
        }
    }
}

/// Returns the address to ask a SOCKS proxy for. `socks4` and `socks5` resolve names here, `socks4a` and `socks5h` at
/// the proxy.
async fn socks_target(proxy: Proxy, route: Route) -> Result<Uri, String> {
    let v4 = proxy.scheme() == "socks4";
    let target = if v4 || proxy.scheme() == "socks5" {
        let found = tokio::net::lookup_host(route.to.clone()).await;
        let mut found = found.map_err(|error| route.failed(&error))?;
        let usable = found.find(|address| address.is_ipv4() || !v4);
        usable.ok_or_else(|| route.refused("the name has no address in DNS"))?.to_string()
    } else {
        route.to.clone()
    };
    format!("http://{target}/").parse::<Uri>().map_err(|error| route.failed(&error))
}

/// Opens a tunnel through an HTTP proxy.
async fn tunnel(stream: Connection, proxy: Proxy, route: Route) -> Result<Connection, String> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| route.failed(&error))?;
    let mut request =
        Request::builder().method(Method::CONNECT).uri(&*route.to).header(header::HOST, &*route.to);
    if let Some(credentials) = proxy.basic_auth() {
        request = request.header(header::PROXY_AUTHORIZATION, credentials);
    }
    let request = request.body(String::new()).map_err(|error| route.failed(&error))?;
    let ask = async move {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        // Without the sender the connection task ends once the tunnel is handed over.
        drop(sender);
        let upgraded = if status.is_success() { Some(hyper::upgrade::on(answer).await) } else { None };
        Ok::<_, hyper::Error>((status, upgraded))
    };
    let (answer, _connection) = tokio::join!(ask, connection.with_upgrades());
    let (status, upgraded) = answer.map_err(|error| route.failed(&error))?;
    match upgraded {
        Some(Ok(io)) => Ok(boxed(TokioIo::new(io))),
        Some(Err(error)) => Err(route.failed(&error)),
        None if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            Err(route.refused("the proxy wants a user and a password"))
        }
        None => Err(route.refused(&format!("the proxy refuses to connect there ({status})"))),
    }
}

/// Returns why a request got no response, as a sentence with the addresses and without the rest of the URL.
pub fn explain(error: &reqwest::Error, proxies: &Proxies) -> String {
    let url = error.url();
    let to = url
        .and_then(|url| Some(address(url.host_str()?, url.port_or_known_default()?)))
        .unwrap_or_else(|| "the server".to_owned());
    let proxy = url.and_then(|url| proxies.of_url(url)).map(ToString::to_string);
    let proxy = proxy.as_deref();
    match error {
        _ if error.is_connect() && error.is_timeout() => {
            format!(
                "cannot connect to {}: no answer in {} seconds",
                place(&to, proxy),
                CONNECT_LIMIT.as_secs()
            )
        }
        _ if error.is_connect() => cannot_connect(&to, proxy, error),
        _ if error.is_timeout() => format!("no answer from {} in time", place(&to, proxy)),
        _ if error.is_builder() => "the address cannot be used".to_owned(),
        _ => broke(&to, proxy, error),
    }
}
