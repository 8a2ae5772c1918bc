//! Masking of secrets in texts from others, in any spelling.
//!
//! A receiver may repeat part of a secret, escaped or decoded. Every readable form of a text (as it is, without
//! percent-encoding, backslashes or entities, without all of them, without blanks) is compared with every form of each
//! secret (itself, decoded, base64, hexadecimal), and common parts of `WINDOW` bytes or more are masked.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

/// Minimum length of a masked part of a secret, in bytes.
const WINDOW: usize = 8;
/// Minimum length of a whole secret that is masked if it stands alone; shorter ones occur in ordinary words.
const SHORTEST: usize = 5;
/// Number of times that escapes are undone, because escaped texts are escaped again.
const DEPTH: usize = 3;
/// First bytes of the escapes that are undone together: all kinds, for texts that mix them, and each by itself.
const ESCAPES: [&[u8]; 4] = [b"%\\&", b"%", b"\\", b"&"];
/// Replacement of a masked part.
const HIDDEN: &str = "[secret]";
/// Minimum length of a word with letters and digits that counts as a secret in ordinary text.
const OPAQUE: usize = 16;

/// The secrets to mask. Its `Debug` prints none of them.
#[derive(Clone, Default)]
pub struct Masking {
    windows: HashSet<[u8; WINDOW]>,
    short: HashSet<Box<[u8]>>,
}

impl std::fmt::Debug for Masking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[masking]")
    }
}

impl Masking {
    /// Masks a single secret, such as a token.
    pub fn of(secret: &str) -> Self {
        let mut masking = Self::default();
        masking.add_secret(secret);
        masking
    }

    pub fn add_secret(&mut self, secret: &str) {
        self.add_long(secret);
        for_each_form(secret, |form| {
            let form = fold(form, Blanks::Dropped).bytes;
            if (SHORTEST..WINDOW).contains(&form.len()) {
                self.short.insert(form.into());
            }
        });
    }

    /// Adds a text of which only longer parts are secret.
    fn add_long(&mut self, text: &str) {
        for_each_form(text, |form| {
            let bytes: Vec<u8> = form.iter().map(|unit| unit.byte).collect();
            for encoded in [STANDARD_NO_PAD.encode(&bytes), super::hex::encode(&bytes)] {
                self.add_windows(&units(&encoded));
            }
            self.add_windows(form);
            // Forms encode a blank as `+`.
            for (from, to) in [(b'+', b' '), (b' ', b'+')] {
                let replaced =
                    |unit: &Unit| Unit { byte: if unit.byte == from { to } else { unit.byte }, ..*unit };
                self.add_windows(&form.iter().map(replaced).collect::<Vec<Unit>>());
            }
        });
    }

    fn add_windows(&mut self, form: &[Unit]) {
        for blanks in [Blanks::Kept, Blanks::Dropped] {
            let folded = fold(form, blanks).bytes;
            self.windows.extend(folded.array_windows_of());
        }
    }

    /// Adds the value of a header, which may be a template: `Bearer TOKEN`, `Basic BASE64`, `Token token="TOKEN"`.
    pub fn add_header(&mut self, value: &str) {
        for literal in literals(value) {
            let (scheme, rest) = literal.split_once(' ').unwrap_or(("", literal));
            let has_scheme = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphabetic());
            let secret = if has_scheme { rest.trim() } else { literal };
            if scheme.eq_ignore_ascii_case("basic") {
                self.add_basic(secret);
            }
            self.add_secret(secret);
            for part in
                secret.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '=' | '"' | '&' | ':'))
            {
                if part.bytes().any(|byte| byte.is_ascii_digit()) {
                    self.add_secret(part);
                }
            }
        }
    }

    fn add_basic(&mut self, encoded: &str) {
        if let Ok(pair) = STANDARD.decode(encoded)
            && let Ok(pair) = String::from_utf8(pair)
            && let Some((user, password)) = pair.split_once(':')
        {
            self.add_login(user, password);
        }
    }

    /// Adds a user name and a password, and their Basic credentials.
    pub fn add_login(&mut self, user: &str, password: &str) {
        self.add_secret(user);
        self.add_secret(password);
        self.add_long(&format!("{user}:{password}"));
    }

    /// Adds the secret parts of a URL, which may be a template: everything but scheme and host.
    pub fn add_url(&mut self, url: &str) {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        if let Some((login, _)) = authority.rsplit_once('@') {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            let decoded = |text: &str| {
                let decoded = unescape(&units(text), b"%");
                String::from_utf8_lossy(&decoded.iter().map(|unit| unit.byte).collect::<Vec<u8>>())
                    .into_owned()
            };
            self.add_login(user, password);
            self.add_login(&decoded(user), &decoded(password));
        }
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        for part in path.split('/').chain([path, query, fragment]) {
            for literal in literals(part) {
                self.add_long(literal);
            }
        }
        for parameter in query.split('&') {
            for literal in literals(parameter.split_once('=').map_or(parameter, |(_, value)| value)) {
                self.add_secret(literal);
            }
        }
    }

    /// Adds the words of a text that look like secrets: long ones with letters and digits.
    pub fn add_opaque_words(&mut self, text: &str) {
        let is_part =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '/' | ':' | '.' | '=');
        for word in text.split(|c| !is_part(c)).filter(|word| word.len() >= OPAQUE) {
            if word.bytes().any(|b| b.is_ascii_digit()) && word.bytes().any(|b| b.is_ascii_alphabetic()) {
                self.add_long(word);
            }
        }
    }

    /// Returns the text with secrets masked.
    pub fn hide(&self, text: &str) -> String {
        if self.windows.is_empty() && self.short.is_empty() {
            return text.to_owned();
        }
        let mut is_hidden = vec![false; text.len()];
        for_each_form(text, |form| {
            for blanks in [Blanks::Kept, Blanks::Dropped] {
                let folded = fold(form, blanks);
                for (at, window) in folded.bytes.array_windows_of().enumerate() {
                    if self.windows.contains(&window) {
                        let (from, to) = (folded.sources[at].0, folded.sources[at + WINDOW - 1].1);
                        is_hidden[from..to].fill(true);
                    }
                }
            }
            self.hide_short(&fold(form, Blanks::Kept), &mut is_hidden);
        });
        let mut shown = String::with_capacity(text.len());
        let mut was_hidden = false;
        for (at, c) in text.char_indices() {
            let hide = is_hidden[at..at + c.len_utf8()].contains(&true);
            match (hide, was_hidden) {
                (true, false) => shown.push_str(HIDDEN),
                (true, true) => {}
                (false, _) => shown.push(c),
            }
            was_hidden = hide;
        }
        shown
    }

    /// Marks short secrets that stand alone.
    fn hide_short(&self, folded: &Folded, is_hidden: &mut [bool]) {
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || !byte.is_ascii();
        for length in SHORTEST..WINDOW {
            for (at, part) in folded.bytes.windows(length).enumerate() {
                let begins = at == 0 || !is_word(&folded.bytes[at - 1]);
                let ends = folded.bytes.get(at + length).is_none_or(|byte| !is_word(byte));
                if begins && ends && self.short.contains(part) {
                    is_hidden[folded.sources[at].0..folded.sources[at + length - 1].1].fill(true);
                }
            }
        }
    }
}

/// One decoded byte, and the bytes of the original text that it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Unit {
    byte: u8,
    source: (usize, usize),
}

fn units(text: &str) -> Vec<Unit> {
    text.bytes().enumerate().map(|(at, byte)| Unit { byte, source: (at, at + 1) }).collect()
}

/// Calls `visit` with every form in which a text can be read.
fn for_each_form(text: &str, mut visit: impl FnMut(&[Unit])) {
    let mut depths = HashMap::new();
    visit_forms(&units(text), DEPTH, &RandomState::new(), &mut depths, &mut visit);
}

/// Visits a form and what it decodes to. `depths` has the visited forms, with the number of levels undone below them.
///
/// Undoing everything at once is not enough: in JSON a secret `a%41` has its percent sign unchanged, and without the
/// backslashes alone the text has the secret as it is.
fn visit_forms(
    form: &[Unit],
    depth: usize,
    hasher: &RandomState,
    depths: &mut HashMap<u64, usize>,
    visit: &mut impl FnMut(&[Unit]),
) {
    let known = depths.insert(hasher.hash_one(form), depth);
    if known.is_none() {
        visit(form);
    }
    for marks in ESCAPES {
        if depth == 0 {
            return;
        }
        let next = unescape(form, marks);
        if next.len() == form.len() {
            continue;
        }
        if depths.get(&hasher.hash_one(&*next)).is_none_or(|levels| *levels < depth - 1) {
            visit_forms(&next, depth - 1, hasher, depths, visit);
        }
    }
}

/// Undoes one level of the escapes that begin with one of `marks`: percent-encoding, JSON escapes, HTML entities.
fn unescape(text: &[Unit], marks: &[u8]) -> Vec<Unit> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let is_mark = marks.contains(&text[at].byte);
        let (length, c) = if is_mark { escape(&text[at..]) } else { None }.unwrap_or((1, None));
        let source = (text[at].source.0, text[at + length - 1].source.1);
        match c {
            None => out.push(text[at]),
            Some(Decoded::Byte(byte)) => out.push(Unit { byte, source }),
            Some(Decoded::Char(c)) => {
                out.extend(c.encode_utf8(&mut [0; 4]).bytes().map(|byte| Unit { byte, source }));
            }
        }
        at += length;
    }
    out
}

enum Decoded {
    Byte(u8),
    Char(char),
}

/// Returns the length and the meaning of the escape at the beginning of a text.
fn escape(text: &[Unit]) -> Option<(usize, Option<Decoded>)> {
    let byte = |at: usize| text.get(at).map(|unit| unit.byte);
    let hex = |from: usize, to: usize| {
        (from..to).try_fold(0, |value, at| Some(value << 4 | char::from(byte(at)?).to_digit(16)?))
    };
    match byte(0)? {
        b'%' => {
            let value = hex(1, 3)?;
            Some((3, Some(Decoded::Byte(u8::try_from(value).ok()?))))
        }
        b'\\' => match byte(1)? {
            b'u' => {
                let unit = hex(2, 6)?;
                if let (0xd800..0xdc00, Some(b'\\'), Some(b'u'), Some(low @ 0xdc00..0xe000)) =
                    (unit, byte(6), byte(7), hex(8, 12))
                {
                    let c = char::from_u32(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00))?;
                    return Some((12, Some(Decoded::Char(c))));
                }
                Some((6, Some(Decoded::Char(char::from_u32(unit)?))))
            }
            b'x' if hex(2, 4).is_some() => Some((4, Some(Decoded::Byte(u8::try_from(hex(2, 4)?).ok()?)))),
            b'n' | b'r' | b't' => Some((2, Some(Decoded::Byte(b' ')))),
            escaped => Some((2, Some(Decoded::Byte(escaped)))),
        },
        b'&' => {
            let length = (2..12).find(|at| byte(*at) == Some(b';'))? + 1;
            let name: Vec<u8> = (1..length - 1).filter_map(byte).collect();
            let name = std::str::from_utf8(&name).ok()?;
            let c = match name {
                "amp" => '&',
                "lt" => '<',
                "gt" => '>',
                "quot" => '"',
                "apos" => '\'',
                "sol" => '/',
                "colon" => ':',
                "equals" => '=',
                "plus" => '+',
                "nbsp" => ' ',
                _ => {
                    let number = name.strip_prefix('#')?;
                    let value = match number.strip_prefix(['x', 'X']) {
                        Some(digits) => u32::from_str_radix(digits, 16),
                        None => number.parse(),
                    };
                    char::from_u32(value.ok()?)?
                }
            };
            Some((length, Some(Decoded::Char(c))))
        }
        _ => None,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Blanks {
    Kept,
    Dropped,
}

/// A text in the form used for comparison.
struct Folded {
    bytes: Vec<u8>,
    sources: Vec<(usize, usize)>,
}

/// Removes differences that do not count: case, the two alphabets of base64, and blanks.
fn fold(text: &[Unit], blanks: Blanks) -> Folded {
    let is_blank = |byte: u8| byte <= b' ' || byte == 0x7f;
    let kept = text.iter().filter(|unit| blanks == Blanks::Kept || !is_blank(unit.byte));
    let folded = kept.map(|unit| {
        let byte = match unit.byte.to_ascii_lowercase() {
            b'_' => b'/',
            b'-' => b'+',
            byte if is_blank(byte) => b' ',
            byte => byte,
        };
        (byte, unit.source)
    });
    let (bytes, sources) = folded.unzip();
    Folded { bytes, sources }
}

/// Returns the literal parts of a template, and the string literals within its expressions.
fn literals(template: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = template;
    while let Some(at) = ["{{", "{%", "{#"].iter().filter_map(|open| rest.find(open)).min() {
        found.push(&rest[..at]);
        let inside = &rest[at + 2..];
        let end = ["}}", "%}", "#}"].iter().filter_map(|close| inside.find(close)).min();
        let (expression, after) = inside.split_at(end.unwrap_or(inside.len()));
        // Every second part is inside quotes.
        found.extend(expression.split(['"', '\'']).skip(1).step_by(2));
        rest = after.get(2..).unwrap_or("");
    }
    found.push(rest);
    found.retain(|literal| !literal.trim().is_empty());
    found.iter().map(|literal| literal.trim()).collect()
}

trait Windows {
    fn array_windows_of(&self) -> impl Iterator<Item = [u8; WINDOW]>;
}

impl Windows for Vec<u8> {
    fn array_windows_of(&self) -> impl Iterator<Item = [u8; WINDOW]> {
        self.windows(WINDOW).map(|window| window.try_into().expect("windows have this length"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(url: &str) -> Masking {
        let mut masking = Masking::default();
        masking.add_url(url);
        masking
    }

    fn header(value: &str) -> Masking {
        let mut masking = Masking::default();
        masking.add_header(value);
        masking
    }

    #[test]
    fn parts_of_a_url_are_masked_in_every_spelling() {
        let masking = url(
            "https://me%40home:pa%24%24word@hook.example/api/webhooks/1234567890/se-cret%2Fpath?key=va%20lue123&b=c",
        );
        let pair = STANDARD_NO_PAD.encode("me@home:pa$$word");
        for said in [
            "no /api/webhooks/1234567890/se-cret%2Fpath here",
            r"no \/api\/webhooks\/1234567890\/se-cret%2Fpath here",
            "no se-cret/path here",
            "no SE-CRET/PATH here",
            "no se-cret%252Fpath here",
            r"no \u0073e-cret\u002Fpath here",
            "no se-cret&#47;path here",
            "no me@home here",
            "no pa$$word here",
            &format!("no {pair} here"),
            &format!("no {} here", &pair[..9]),
            "no va lue123 here",
            "no va+lue123 here",
            "no va%20lue123 here",
            "no 1234567890 here",
        ] {
            assert_eq!(masking.hide(said), "no [secret] here", "{said}");
        }
        for harmless in ["hook.example answered", "unknown webhook", "bad value"] {
            assert_eq!(masking.hide(harmless), harmless);
        }
    }

    #[test]
    fn headers_are_masked_except_their_scheme() {
        let masking = header("Bearer abcdefghijkl");
        assert_eq!(masking.hide("invalid token abcdefghijkl"), "invalid token [secret]");
        assert_eq!(masking.hide("invalid token abcdefgh…"), "invalid token [secret]…");
        assert_eq!(masking.hide("a Bearer token is needed"), "a Bearer token is needed");
        let basic = header(&format!("Basic {}", STANDARD.encode("somebody:hunter2")));
        assert_eq!(basic.hide("somebody may not; hunter2 is wrong"), "[secret] may not; [secret] is wrong");
        let token = header("Token token=abc123, id=\"q1w2e3r4t5\"");
        assert_eq!(token.hide("token abc123 or q1w2e3r4t5"), "token [secret] or [secret]");
        let template = header("Key {{ type }}-s3cr3tvalue");
        assert_eq!(template.hide("no s3cr3tvalue for stream.online"), "no [secret] for stream.online");
    }

    #[test]
    fn short_secrets_are_masked_if_they_stand_alone() {
        let masking = Masking::of("hunter2");
        assert_eq!(masking.hide("hunter2: bad (hunter2)"), "[secret]: bad ([secret])");
        assert_eq!(masking.hide("hunter22 and xhunter2"), "hunter22 and xhunter2");
        assert_eq!(Masking::of("abc").hide("abc"), "abc");
        assert_eq!(Masking::default().hide("anything"), "anything");
        assert_eq!(format!("{masking:?}"), "[masking]");
    }

    #[test]
    fn secrets_in_a_longer_text_are_its_opaque_words() {
        let mut masking = Masking::default();
        masking.add_opaque_words(r#"{"content": "a message", "token": "a1b2c3d4e5f6g7h8i9"}"#);
        assert_eq!(masking.hide("no content, token a1b2c3d4e5f6g7h8i9"), "no content, token [secret]");
    }

    /// Returns a secret in one of the spellings in which a receiver may repeat it.
    fn spell(secret: &str, spelling: usize) -> String {
        let each = |f: &dyn Fn(u8) -> String| secret.bytes().map(f).collect::<String>();
        match spelling {
            0 => secret.to_owned(),
            1 => each(&|byte| format!("%{byte:02X}")),
            2 => each(&|byte| format!("%25{byte:02x}")),
            3 => each(&|byte| format!("\\u{byte:04x}")),
            4 => each(&|byte| format!("&#{byte};")),
            5 => secret.to_uppercase(),
            6 => {
                let json = serde_json::to_string(&secret).unwrap();
                json[1..json.len() - 1].replace('/', "\\/")
            }
            7 => STANDARD.encode(secret),
            8 => base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(secret),
            9 => each(&|byte| format!("{byte:02x}")),
            10 => each(&|byte| format!("{}\n", char::from(byte))),
            11 => form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
            _ => each(&|byte| match byte {
                b'&' => "&amp;".to_owned(),
                b'<' => "&lt;".to_owned(),
                b'>' => "&gt;".to_owned(),
                b'"' => "&quot;".to_owned(),
                b'\'' => "&#39;".to_owned(),
                byte => char::from(byte).to_string(),
            }),
        }
    }

    /// Spellings that keep every byte, so that a text can be spelt in one of them again.
    const ESCAPED: [usize; 6] = [1, 3, 4, 6, 11, 12];

    #[test]
    fn parts_that_look_escaped_are_masked_when_they_are_escaped_otherwise() {
        for (secret, said) in [
            ("00!!/%aAa", r"0!!\/%aAa"),
            ("00!!/%aAa", "0!&#33;/%aAa"),
            (r"00!!/\x4a", "0!!%2F%5Cx4a"),
            (r"00!!/\x4a", "0!!&sol;\\x4a"),
            ("00!/&lt;a", r"0!\/&lt;a"),
            ("00!/&lt;a", "0!%2F%26lt;a"),
            ("00!!/%aAa", r"0!&#33;\/%aAa"),
        ] {
            let masking = Masking::of(secret);
            assert_eq!(masking.hide(&format!("no {said} here")), "no [secret] here", "{said} of {secret}");
        }
    }

    /// Secrets with parts that look like escapes.
    const LOOKS_ESCAPED: &str =
        r"(%[0-9A-Fa-f]{2}|&(amp|lt|#4[0-9]);|\\(u00[2-7][0-9]|x4[0-9]|[nrt/\\])|[!-~]){8,20}";

    proptest! {
        /// Checks that no part of a secret as long as a window is left, in any spelling and between any words.
        #[test]
        fn nothing_of_a_secret_is_left(
            secret in prop_oneof!["[!-~]{8,60}", LOOKS_ESCAPED],
            from in any::<prop::sample::Index>(),
            spelling in 0..13_usize,
            again in prop::option::of(prop::sample::select(&ESCAPED[..])),
            before in "[a-z ]{0,12}",
            after in "[a-z ]{0,12}",
            kind in 0..3_usize,
        ) {
            let path = form_urlencoded::byte_serialize(secret.as_bytes()).collect::<String>();
            let masking = match kind {
                0 => Masking::of(&secret),
                1 => url(&format!("https://host/{path}")),
                _ => url(&format!("https://host/?key={path}")),
            };
            // Base64 of a part from the middle is another text; that of a prefix is a prefix of the whole.
            let from = if matches!(spelling, 7 | 8) { 0 } else { from.index(secret.len() - WINDOW + 1) };
            let mut spelt = spell(&secret[from..], spelling);
            if let Some(again) = again {
                // Padding is no part of a secret, and is longer than a window once it is escaped.
                spelt = spell(spelt.trim_end_matches(if spelling == 7 { "=" } else { "\0" }), again);
            }
            let shown = masking.hide(&format!("{before} {spelt} {after}"));
            for at in 0..spelt.len().saturating_sub(WINDOW - 1) {
                if let Some(part) = spelt.get(at..at + WINDOW) {
                    // A run of one letter may belong to the surrounding text.
                    prop_assert!(
                        !shown.contains(part) || before.contains(part) || after.contains(part),
                        "{part:?} of {spelt:?} is left in {shown:?}"
                    );
                }
            }
            prop_assert!(shown.contains(HIDDEN));
        }

        #[test]
        fn any_text_can_be_masked(secret in ".{0,30}", text in ".{0,200}") {
            let mut masking = Masking::of(&secret);
            masking.add_url(&secret);
            masking.add_header(&secret);
            masking.add_opaque_words(&secret);
            masking.hide(&text);
        }
    }
}
