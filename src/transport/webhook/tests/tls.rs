//! TLS without a proxy.

use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use std::time::Duration;

/// A self-signed certificate and its key.
fn make(folder: &Path, name: &str) -> TlsFiles {
    let files =
        TlsFiles { certificate: folder.join(format!("{name}.crt")), key: folder.join(format!("{name}.key")) };
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    files
}

async fn connect(address: SocketAddr, trusted: &Path) -> std::io::Result<Client<TlsStream<TcpStream>>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trusted).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    Ok(Client { stream: soon("the handshake", handshake).await?, read: Vec::new() })
}

#[tokio::test]
async fn certificates_are_read_again_when_they_change() {
    let folder = tempfile::tempdir().unwrap();
    let [files, new] = ["used", "new"].map(|name| make(folder.path(), name));
    let old = folder.path().join("old.crt");
    std::fs::copy(&files.certificate, &old).unwrap();
    let tls = Tls::load(files.clone()).unwrap();
    let server = Server::with(|options| {
        options.tls = Some(tls.clone());
        options.limits.connections.handshake = Duration::from_millis(200);
    })
    .await;
    let mut first = connect(server.address, &old).await.unwrap();
    assert_eq!(first.ask(&Post::event("m-1")).await.status, 204);
    assert!(!tls.refresh(), "nothing has changed");

    // The certificate alone does not fit the old key.
    std::fs::copy(&new.certificate, &files.certificate).unwrap();
    assert!(tls.refresh());
    assert!(!tls.refresh(), "it is not tried again before it changes");
    let problem = tls.problem().unwrap();
    assert!(problem.contains("used.crt") && problem.contains("serves on"), "{problem}");
    assert_eq!(connect(server.address, &old).await.unwrap().ask(&Post::event("m-2")).await.status, 204);
    server.until("the problem", |s| s.tls && s.problem.as_ref() == Some(&problem)).await;

    std::fs::copy(&new.key, &files.key).unwrap();
    assert!(tls.refresh());
    assert_eq!(tls.problem(), None);
    let mut second = connect(server.address, &new.certificate).await.unwrap();
    assert_eq!(second.ask(&Post::event("m-3")).await.status, 204);
    assert!(connect(server.address, &old).await.is_err(), "the old one is not served any more");
    assert_eq!(first.ask(&Post::event("m-4")).await.status, 204, "its connection goes on");
    server.until("no problem", |s| s.problem.is_none()).await;

    // A client that does not speak TLS, or sends nothing, blocks nobody.
    let mut silent = server.connect().await;
    assert!(silent.is_ended().await);
    let mut plain = server.connect().await;
    plain.send(Post::event("m-5").bytes()).await;
    let mut rest = Vec::new();
    let _ = soon("its end", plain.stream.read_to_end(&mut rest)).await;
    assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    assert_eq!(server.ids().await, ["m-1", "m-2", "m-3", "m-4"]);
    server.end().await;
}

#[tokio::test]
async fn changed_files_are_found_without_being_told() {
    let folder = tempfile::tempdir().unwrap();
    let [files, new] = ["used", "new"].map(|name| make(folder.path(), name));
    let tls = Tls::load(files.clone()).unwrap();
    let server = Server::with(|options| options.tls = Some(tls)).await;
    std::fs::copy(&new.key, &files.key).unwrap();
    std::fs::copy(&new.certificate, &files.certificate).unwrap();
    soon("the new certificate", async {
        while connect(server.address, &new.certificate).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    server.end().await;
}

#[test]
fn errors_say_which_file() {
    let folder = tempfile::tempdir().unwrap();
    let files = make(folder.path(), "a");
    let other = make(folder.path(), "b");
    let load = |certificate: &Path, key: &Path| {
        let error = Tls::load(TlsFiles { certificate: certificate.to_owned(), key: key.to_owned() });
        error.unwrap_err().to_string()
    };
    let missing = folder.path().join("missing");
    assert!(load(&missing, &files.key).ends_with("missing"));
    assert!(load(&files.key, &files.key).contains("a.key has no certificate"));
    assert!(load(&files.certificate, &files.certificate).contains("a.crt has no private key"));
    assert!(load(&files.certificate, &other.key).contains("cannot be used with the key in"));
}
