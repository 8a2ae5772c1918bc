//! Requests to id.twitch.tv and their responses. Classified by status, never by text: Twitch changes texts
//! unannounced. ◆

use std::time::Duration;

use serde_json::Value;

use super::token::{MintOutcome, ValidateOutcome};
use crate::model::grants::Scopes;
use crate::model::json::Members;
use crate::model::masking::Masking;
use crate::model::secret::Secret;
use crate::model::text::one_line;

/// Maximum length of a quotation from Twitch, in characters.
const EXCERPT: usize = 200;
/// The longest accepted token, in bytes. Twitch's have 30, but no length is promised.
const MAX_TOKEN: usize = 4_096;

/// Returns the form of the client credentials grant, sent as a body to keep it out of logs of URLs.
pub fn mint_form<'a>(client_id: &'a str, client_secret: &'a Secret) -> [(&'static str, &'a str); 3] {
    [
        ("client_id", client_id),
        ("client_secret", client_secret.expose()),
        ("grant_type", "client_credentials"),
    ]
}

/// The answer of the token endpoint: the token and its life in seconds.
///
/// # Errors
/// Why there is none.
fn minted(body: &[u8]) -> Result<(Secret, u64), String> {
    let body: Value = serde_json::from_slice(body).map_err(|_| "it is not JSON".to_owned())?;
    let members = Members::of(&body)?;
    let token = members.needed_text("access_token")?;
    if !is_token(&token) {
        return Err("`access_token` is not a token".to_owned());
    }
    // A lifetime that cannot be read is unknown.
    Ok((Secret::new(token), members.number("expires_in").ok().flatten().unwrap_or(0)))
}

/// Converts a lifetime; 0 with status 200 means "no known expiry".
fn life(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds.min(10 * 365 * 86_400)))
}

/// Classifies a response of the token endpoint. `secret` is masked in messages.
pub fn parse_mint(status: u16, body: &[u8], secret: &Secret) -> MintOutcome {
    match status {
        200..=299 => match minted(body) {
            Ok((secret, seconds)) => MintOutcome::Minted { secret, expires_in: life(seconds) },
            Err(why) => {
                MintOutcome::Temporary(format!("the token endpoint answered {status} without a token: {why}"))
            }
        },
        400 | 401 | 403 | 404 | 410 if !is_refusal(body) => MintOutcome::Temporary(format!(
            "the token endpoint answered {status}, and not as Twitch refuses; does `twitch.auth_url` lead to Twitch?"
        )),
        400 | 401 | 403 | 404 | 410 => MintOutcome::Refused(format!("{status} {}", message(body, secret))),
        _ => {
            MintOutcome::Temporary(format!("the token endpoint answered {status} {}", message(body, secret)))
        }
    }
}

/// Classifies a response of the validation endpoint.
pub fn parse_validate(status: u16, body: &[u8]) -> ValidateOutcome {
    match status {
        200 => match validated(body) {
            Ok((client_id, seconds)) => ValidateOutcome::Valid { client_id, expires_in: life(seconds) },
            Err(why) => ValidateOutcome::Temporary(format!(
                "the answer of the validation endpoint cannot be read: {why}"
            )),
        },
        401 => ValidateOutcome::Dead,
        _ => ValidateOutcome::Temporary(format!("the validation endpoint answered {status}")),
    }
}

fn validated(body: &[u8]) -> Result<(String, u64), String> {
    let body: Value = serde_json::from_slice(body).map_err(|_| "it is not JSON".to_owned())?;
    let members = Members::of(&body)?;
    Ok((members.needed_text("client_id")?, members.number("expires_in").ok().flatten().unwrap_or(0)))
}

/// Returns the form that asks for a device code with these scopes (Twitch: "Device code grant flow").
pub fn device_form<'a>(client_id: &'a str, scopes: &'a str) -> [(&'static str, &'a str); 2] {
    [("client_id", client_id), ("scopes", scopes)]
}

/// Returns the form that asks for the token of a device code.
pub fn device_token_form<'a>(
    client_id: &'a str,
    scopes: &'a str,
    device_code: &'a Secret,
) -> [(&'static str, &'a str); 4] {
    [
        ("client_id", client_id),
        ("scopes", scopes),
        ("device_code", device_code.expose()),
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
    ]
}

/// Returns the address at Twitch where a user is asked for consent (Twitch: "Authorization code grant flow"). The page
/// is always shown, so that the user sees which account it is, and can change it.
pub fn consent_url(auth_url: &str, client_id: &str, redirect_uri: &str, scopes: &str, state: &str) -> String {
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("response_type", "code")
        .append_pair("client_id", client_id)
        .append_pair("redirect_uri", redirect_uri)
        .append_pair("scope", scopes)
        .append_pair("state", state)
        .append_pair("force_verify", "true")
        .finish();
    format!("{auth_url}/authorize?{query}")
}

/// Returns the form that exchanges an authorization code for a token.
pub fn code_form<'a>(
    client_id: &'a str,
    client_secret: &'a Secret,
    code: &'a Secret,
    redirect_uri: &'a str,
) -> [(&'static str, &'a str); 5] {
    [
        ("client_id", client_id),
        ("client_secret", client_secret.expose()),
        ("code", code.expose()),
        ("grant_type", "authorization_code"),
        ("redirect_uri", redirect_uri),
    ]
}

/// Classifies the response to the exchange of an authorization code. Twitch refuses a code with 400, and the client's
/// credentials mostly with 403.
pub fn parse_code(status: u16, body: &[u8], code: &Secret) -> CodeOutcome {
    match status {
        200..=299 => match minted(body) {
            Ok((token, _)) => CodeOutcome::Granted(token),
            Err(why) => CodeOutcome::Temporary(format!("answer {status} without a token: {why}")),
        },
        400 if is_refusal(body) => CodeOutcome::Code(format!("{status} {}", message(body, code))),
        401 | 403 if is_refusal(body) => CodeOutcome::Client(format!("{status} {}", message(body, code))),
        _ => CodeOutcome::Temporary(format!("answer {status} {}", message(body, code))),
    }
}

/// Outcome of exchanging an authorization code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodeOutcome {
    Granted(Secret),
    /// The code is used up, has expired or was never one; with Twitch's message.
    Code(String),
    /// The credentials of the application are refused; with Twitch's message.
    Client(String),
    Temporary(String),
}

/// A device code with instructions for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceCode {
    /// Code that identifies this grant to Twitch.
    pub device_code: Secret,
    /// Code to type, if the page asks for it.
    pub user_code: String,
    /// Page that the user opens.
    pub verification_uri: String,
    pub expires_in: Duration,
    /// Minimum pause between two polls.
    pub interval: Duration,
}

/// Lifetime of a device code if the response does not state one, in seconds: Twitch's usual one.
const DEVICE_LIFE: u64 = 1_800;

fn device(body: &[u8]) -> Result<DeviceCode, String> {
    let body: Value = serde_json::from_slice(body).map_err(|_| "it is not JSON".to_owned())?;
    let members = Members::of(&body)?;
    let seconds = |name: &str| members.number(name).ok().flatten();
    Ok(DeviceCode {
        device_code: Secret::new(members.needed_text("device_code")?),
        user_code: members.text("user_code")?.unwrap_or_default(),
        verification_uri: members.needed_text("verification_uri")?,
        expires_in: Duration::from_secs(seconds("expires_in").unwrap_or(DEVICE_LIFE).clamp(1, 86_400)),
        interval: Duration::from_secs(seconds("interval").unwrap_or(0).clamp(1, 60)),
    })
}

/// Outcome of polling for the token of a device code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceOutcome {
    /// The user has not decided yet.
    Pending,
    /// The user has not decided yet, and polls come too often.
    SlowDown,
    /// The user has granted the scopes.
    Granted(Secret),
    /// The code is used up, has expired, or was refused; with Twitch's message.
    Over(String),
    Temporary(String),
}

/// User and scopes of a user access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUser {
    /// The application that the token belongs to.
    pub client_id: Box<str>,
    pub user_id: Box<str>,
    /// Empty if Twitch does not state it.
    pub login: Box<str>,
    pub scopes: Scopes,
}

fn token_user(body: &[u8]) -> Result<TokenUser, String> {
    let body: Value = serde_json::from_slice(body).map_err(|_| "it is not JSON".to_owned())?;
    let members = Members::of(&body)?;
    Ok(TokenUser {
        client_id: members.needed_text("client_id")?.into(),
        user_id: members.needed_text("user_id")?.into(),
        login: members.text("login")?.unwrap_or_default().into(),
        scopes: members.texts("scopes")?.into_iter().map(Into::into).collect(),
    })
}

/// Parses the response to a request for a device code.
///
/// # Errors
/// The reason for not getting a code.
pub fn parse_device(status: u16, body: &[u8]) -> Result<DeviceCode, String> {
    let nothing = Secret::new("");
    match status {
        200..=299 => device(body).map_err(|why| format!("the answer holds no device code: {why}")),
        _ => Err(format!("{status} {}", message(body, &nothing))),
    }
}

/// Classifies the response to a poll for a device code. Texts count here: only they distinguish a code that waits for
/// the user from one that is used up.
pub fn parse_device_token(status: u16, body: &[u8], device_code: &Secret) -> DeviceOutcome {
    let words = message(body, device_code);
    let says = |text: &str| words.to_ascii_lowercase().replace(' ', "_").contains(text);
    match status {
        200..=299 => match minted(body) {
            Ok((token, _)) => DeviceOutcome::Granted(token),
            Err(why) => DeviceOutcome::Temporary(format!("answer {status} without a token: {why}")),
        },
        400..=428 if says("authorization_pending") => DeviceOutcome::Pending,
        400..=429 if says("slow_down") => DeviceOutcome::SlowDown,
        400..=428 => DeviceOutcome::Over(format!("{status} {words}")),
        429 => DeviceOutcome::SlowDown,
        _ => DeviceOutcome::Temporary(format!("answer {status} {words}")),
    }
}

/// Returns the user of a token from a response of the validation endpoint.
///
/// # Errors
/// The reason why the user is unknown.
pub fn parse_token_user(status: u16, body: &[u8]) -> Result<TokenUser, String> {
    match status {
        200 => token_user(body).map_err(|why| format!("the answer names no user: {why}")),
        _ => Err(format!("the validation endpoint answered {status}")),
    }
}

/// Returns whether the body is an error of Twitch's: an object with a status or a message.
fn is_refusal(body: &[u8]) -> bool {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    Members::of(&body).is_ok_and(|members| members.has("status") || members.has("message"))
}

fn is_token(text: &str) -> bool {
    (1..=MAX_TOKEN).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

fn message(body: &[u8], secret: &Secret) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = Members::of(&body).and_then(|members| members.text("message"));
    let text = text.ok().flatten().unwrap_or_default();
    one_line(&Masking::of(secret.expose()).hide(&text), EXCERPT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::json::testing::{Changed, changes};

    #[test]
    fn answers_of_the_token_endpoint() {
        let secret = Secret::new("s3cret");
        let good = br#"{"access_token":"abc","expires_in":5187744,"token_type":"bearer"}"#;
        assert_eq!(
            parse_mint(200, good, &secret),
            MintOutcome::Minted {
                secret: Secret::new("abc"),
                expires_in: Some(Duration::from_secs(5_187_744))
            }
        );
        let forever = br#"{"access_token":"abc","expires_in":0}"#;
        assert!(matches!(parse_mint(200, forever, &secret), MintOutcome::Minted { expires_in: None, .. }));
        assert_eq!(
            parse_mint(403, br#"{"status":403,"message":"invalid client secret"}"#, &secret),
            MintOutcome::Refused("403 invalid client secret".to_owned())
        );
        assert_eq!(
            parse_mint(400, br#"{"message":"no such s3cret\u0007"}"#, &secret),
            MintOutcome::Refused(r"400 no such [secret]\x07".to_owned())
        );
        for (status, body) in [
            (500, &b""[..]),
            (429, b"{}"),
            (302, b""),
            (200, b"<html>"),
            (404, b"<html>"),
            (200, b"{\"access_token\":\"\"}"),
        ] {
            assert!(matches!(parse_mint(status, body, &secret), MintOutcome::Temporary(_)), "{status}");
        }
    }

    #[test]
    fn answers_of_the_validation_endpoint() {
        let app = br#"{"client_id":"us","login":null,"scopes":null,"expires_in":100}"#;
        assert_eq!(
            parse_validate(200, app),
            ValidateOutcome::Valid { client_id: "us".to_owned(), expires_in: Some(Duration::from_secs(100)) }
        );
        assert_eq!(
            parse_validate(401, br#"{"status":401,"message":"invalid access token"}"#),
            ValidateOutcome::Dead
        );
        assert!(matches!(parse_validate(200, b"nonsense"), ValidateOutcome::Temporary(_)));
        assert!(matches!(parse_validate(503, b""), ValidateOutcome::Temporary(_)));
    }

    #[test]
    fn nulls_and_numbers_as_text_are_accepted() {
        let secret = Secret::new("s");
        let minted =
            parse_mint(200, br#"{"access_token":"abc","expires_in":"60","token_type":null}"#, &secret);
        let expires_in = Some(Duration::from_secs(60));
        assert_eq!(minted, MintOutcome::Minted { secret: Secret::new("abc"), expires_in });
        for life in ["null", "-1", "1e300", "[]"] {
            let body = format!(r#"{{"access_token":"abc","expires_in":{life}}}"#);
            let minted = parse_mint(200, body.as_bytes(), &secret);
            assert!(matches!(minted, MintOutcome::Minted { expires_in: None, .. }), "{life}");
        }
        let valid = parse_validate(200, br#"{"client_id":"us","expires_in":null,"scopes":{}}"#);
        assert_eq!(valid, ValidateOutcome::Valid { client_id: "us".to_owned(), expires_in: None });
        let ValidateOutcome::Temporary(why) = parse_validate(200, br#"{"client_id":null}"#) else { panic!() };
        assert!(why.contains("`client_id` is null"), "{why}");
        let user =
            parse_token_user(200, br#"{"client_id":"us","user_id":7,"login":null,"scopes":null}"#).unwrap();
        assert_eq!((&*user.user_id, &*user.login, user.scopes.len()), ("7", "", 0));
        let why = parse_device(200, br#"{"device_code":"dc","verification_uri":[]}"#).unwrap_err();
        assert!(why.contains("`verification_uri` is a list"), "{why}");
        let MintOutcome::Refused(why) = parse_mint(400, br#"{"message":null}"#, &secret) else { panic!() };
        assert_eq!(why, "400 ");
    }

    /// Reads an answer; the error says why it cannot be used.
    type Read = fn(&[u8]) -> Result<(), String>;

    #[test]
    fn a_member_of_any_kind_is_read_past_or_named() {
        let reads: [(&str, &str, &[&str], Read); 6] = [
            (
                "token",
                r#"{"access_token":"abc","expires_in":5187744,"token_type":"bearer"}"#,
                &["access_token"],
                |body| match parse_mint(200, body, &Secret::new("s")) {
                    MintOutcome::Minted { .. } => Ok(()),
                    MintOutcome::Temporary(why) => Err(why),
                    MintOutcome::Refused(why) => panic!("{why}"),
                },
            ),
            (
                "validate",
                r#"{"client_id":"us","login":"ann","scopes":["a"],"user_id":"7","expires_in":100}"#,
                &["client_id"],
                |body| match parse_validate(200, body) {
                    ValidateOutcome::Valid { .. } => Ok(()),
                    ValidateOutcome::Temporary(why) => Err(why),
                    ValidateOutcome::Dead => panic!("dead"),
                },
            ),
            (
                "validate of a user's token",
                r#"{"client_id":"us","login":"ann","scopes":["a"],"user_id":"7","expires_in":100}"#,
                &["client_id", "user_id", "login", "scopes"],
                |body| parse_token_user(200, body).map(|_| ()),
            ),
            (
                "device",
                r#"{"device_code":"dc","expires_in":1800,"interval":5,"user_code":"ABC","verification_uri":"https://x/"}"#,
                &["device_code", "user_code", "verification_uri"],
                |body| parse_device(200, body).map(|_| ()),
            ),
            (
                "token of a device",
                r#"{"access_token":"abc","expires_in":14000,"refresh_token":"r","scope":["a"],"token_type":"bearer"}"#,
                &["access_token"],
                |body| match parse_device_token(200, body, &Secret::new("dc")) {
                    DeviceOutcome::Granted(_) => Ok(()),
                    DeviceOutcome::Temporary(why) => Err(why),
                    other => panic!("{other:?}"),
                },
            ),
            (
                "token of an authorization code",
                r#"{"access_token":"abc","expires_in":14000,"refresh_token":"r","scope":["a"],"token_type":"bearer"}"#,
                &["access_token"],
                |body| match parse_code(200, body, &Secret::new("c")) {
                    CodeOutcome::Granted(_) => Ok(()),
                    CodeOutcome::Temporary(why) => Err(why),
                    other => panic!("{other:?}"),
                },
            ),
        ];
        for (what, text, needed, read) in reads {
            let good: Value = serde_json::from_str(text).unwrap();
            assert_eq!(read(text.as_bytes()), Ok(()), "{what}");
            let mut unusable = 0;
            for changed in changes(&good) {
                let case = format!("{what} {} {}", changed.path, changed.how);
                if let Err(why) = read(changed.row.to_string().as_bytes()) {
                    assert!(needed.contains(&changed.name()), "{case}: {why}");
                    assert!(why.contains(&format!("`{}`", changed.name())), "{case}: {why}");
                    unusable += 1;
                }
            }
            assert!(unusable >= 5, "{what}: {unusable}");
        }
    }

    #[test]
    fn a_refusal_is_read_whatever_its_members_are() {
        let good: Value =
            serde_json::from_str(r#"{"error":"Forbidden","status":403,"message":"invalid client secret"}"#)
                .unwrap();
        for Changed { path, how, row } in changes(&good) {
            let body = row.to_string();
            let outcome = parse_mint(403, body.as_bytes(), &Secret::new("s"));
            assert!(matches!(outcome, MintOutcome::Refused(_)), "{path} {how}: {outcome:?}");
            let outcome = parse_device_token(403, body.as_bytes(), &Secret::new("dc"));
            assert!(matches!(outcome, DeviceOutcome::Over(_)), "{path} {how}: {outcome:?}");
            assert!(parse_device(403, body.as_bytes()).unwrap_err().starts_with("403"), "{path} {how}");
            assert_eq!(parse_validate(401, body.as_bytes()), ValidateOutcome::Dead, "{path} {how}");
        }
    }

    #[test]
    fn answers_about_a_device() {
        let code = br#"{"device_code":"dc","expires_in":1800,"interval":0,"user_code":"ABC","verification_uri":"https://x/"}"#;
        let code = parse_device(200, code).unwrap();
        assert_eq!((code.user_code.as_str(), code.interval), ("ABC", Duration::from_secs(1)));
        assert_eq!(
            parse_device(400, br#"{"message":"invalid client"}"#),
            Err("400 invalid client".to_owned())
        );
        let of = |status, text: &str| {
            let body = format!(r#"{{"status":{status},"message":"{text}"}}"#);
            parse_device_token(status, body.as_bytes(), &Secret::new("dc"))
        };
        assert_eq!(of(400, "authorization_pending"), DeviceOutcome::Pending);
        assert_eq!(of(400, "slow_down"), DeviceOutcome::SlowDown);
        assert_eq!(of(400, "invalid device code"), DeviceOutcome::Over("400 invalid device code".to_owned()));
        assert!(matches!(of(503, ""), DeviceOutcome::Temporary(_)));
        let granted = parse_device_token(200, br#"{"access_token":"abc","scope":["a"]}"#, &Secret::new("dc"));
        assert_eq!(granted, DeviceOutcome::Granted(Secret::new("abc")));
        let user =
            parse_token_user(200, br#"{"client_id":"us","user_id":"7","login":"ann","scopes":["a:b"]}"#)
                .unwrap();
        assert_eq!((&*user.user_id, &*user.login, user.scopes.len()), ("7", "ann", 1));
        assert!(parse_token_user(200, br#"{"client_id":"c","user_id":null}"#).is_err(), "an app's token");
    }

    #[test]
    fn answers_to_an_authorization_code() {
        let of = |status, body: &str| parse_code(status, body.as_bytes(), &Secret::new("c0de-of-thirty"));
        let granted = of(200, r#"{"access_token":"abc","refresh_token":"r","scope":["a"]}"#);
        assert_eq!(granted, CodeOutcome::Granted(Secret::new("abc")));
        let used = of(400, r#"{"status":400,"message":"Invalid authorization code c0de-of-thirty"}"#);
        assert_eq!(used, CodeOutcome::Code("400 Invalid authorization code [secret]".to_owned()));
        let refused = of(403, r#"{"status":403,"message":"invalid client secret"}"#);
        assert_eq!(refused, CodeOutcome::Client("403 invalid client secret".to_owned()));
        for (status, body) in [(500, ""), (429, "{}"), (302, ""), (200, "{}"), (400, "<html>"), (403, "")] {
            assert!(matches!(of(status, body), CodeOutcome::Temporary(_)), "{status} {body}");
        }
        let url = consent_url("https://id.example/oauth2", "us", "https://a.example/x", "a:b c:d", "s&t");
        assert_eq!(
            url,
            "https://id.example/oauth2/authorize?response_type=code&client_id=us\
             &redirect_uri=https%3A%2F%2Fa.example%2Fx&scope=a%3Ab+c%3Ad&state=s%26t&force_verify=true"
        );
    }

    proptest! {
        #[test]
        fn any_response_is_classified(status in 100..600_u16, body in prop::collection::vec(any::<u8>(), 0..200)) {
            let secret = Secret::new("x");
            let mint = parse_mint(status, &body, &secret);
            let minted = matches!(mint, MintOutcome::Minted { .. });
            prop_assert!(!minted || status < 300);
            prop_assert_eq!(parse_validate(status, &body) == ValidateOutcome::Dead, status == 401);
        }
    }
}
