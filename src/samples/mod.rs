//! Sample events for every type of the catalogue. ◆
//!
//! Owns the templates (`*.json`, one file for a family of types), the code that fills them, and the list of members
//! (`members.txt`) that they are held against. The members stand in Twitch's order. Templates are text and stay text,
//! so that order and numbers come out as written.
//!
//! Must never ask a clock or a source of chance: equal requests give equal events. Holds no state, so a
//! crash loses nothing.

mod members;
mod message;
mod render;
mod request;
mod series;
mod templates;
mod values;

#[cfg(test)]
mod tests;

pub use self::members::{Description, Kind, Member, description};
pub use self::message::{gap, message, revocation};
pub use self::request::{SampleRequest, SampleUser};
pub use self::series::{Happening, Happenings};
use self::templates::Variant;
use self::values::Values;

/// The JSON text of `event` (or, for batched types, `events` with its brackets), on one line.
///
/// A type or version without a template gives an object of the condition's fields (with logins and names
/// of users), since Twitch has types that the catalogue does not know.
pub fn event(request: &SampleRequest<'_>) -> String {
    let values = Values::new(request);
    match templates(request) {
        Some(variants) => render::render(&choose(request, &values, variants).template, &values),
        None => unknown(request),
    }
}

/// Like [`event`], once for each variant of the type, in the order of the templates.
pub fn every_variant(request: &SampleRequest<'_>) -> Vec<String> {
    let values = Values::new(request);
    match templates(request) {
        Some(variants) => variants.iter().map(|variant| render::render(&variant.template, &values)).collect(),
        None => vec![unknown(request)],
    }
}

/// Like [`event`], of the variant with this name.
pub fn variant(request: &SampleRequest<'_>, name: &str) -> Option<String> {
    let variant = templates(request)?.iter().find(|variant| variant.name == name)?;
    Some(render::render(&variant.template, &Values::new(request)))
}

/// The names of a type's variants, the most usual one first.
pub fn variants(subscription_type: &str, version: &str) -> impl Iterator<Item = &'static str> {
    templates::variants(subscription_type, version).unwrap_or_default().iter().map(|variant| variant.name)
}

fn templates(request: &SampleRequest<'_>) -> Option<&'static [Variant]> {
    templates::variants(request.subscription_type, request.version).filter(|variants| !variants.is_empty())
}

/// The variant that the serial picks; within a happening, the one with the name that its first event had, if there is
/// such a one.
fn choose<'a>(request: &SampleRequest<'_>, values: &Values<'_>, variants: &'a [Variant]) -> &'a Variant {
    let leader = request.happening.and_then(|_| series::leader(request.subscription_type));
    let first = leader.and_then(|leader| templates::variants(leader, request.version));
    let named = first.and_then(|first| {
        let name = first.get(values.variant(first.len()))?.name;
        variants.iter().find(|variant| variant.name == name)
    });
    named.unwrap_or_else(|| &variants[values.variant(variants.len())])
}

fn unknown(request: &SampleRequest<'_>) -> String {
    let mut members = Vec::new();
    let mut add = |name: &str, value: &str| {
        members.push(format!("\"{}\":\"{}\"", render::escaped(name), render::escaped(value)));
    };
    for (name, value) in request.condition.iter() {
        add(name, value);
        if let Some(prefix) = name.strip_suffix("_id").filter(|prefix| prefix.ends_with("user")) {
            let user = (request.user)(value);
            add(&format!("{prefix}_login"), &user.login);
            add(&format!("{prefix}_name"), &user.name);
        }
    }
    format!("{{{}}}", members.join(","))
}
