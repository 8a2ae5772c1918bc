//! A certificate for this machine, made in the test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Writes a certificate that signs itself for `localhost` and 127.0.0.1, `cert.pem`, and its key, `key.pem`.
pub fn certificate(folder: &Path) {
    let names = ["localhost", "127.0.0.1"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    fs::write(folder.join("cert.pem"), made.cert.pem()).expect("a file");
    let key = folder.join("key.pem");
    fs::write(&key, made.signing_key.serialize_pem()).expect("a file");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("the owner of the file");
}
