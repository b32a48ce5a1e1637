//! The walk over a file: every value against the table, every fault with its place.

use std::collections::HashMap;
use std::ops::Range;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::diagnostic::{Diagnostics, Place};
use super::kind::{self, Kind};
use super::settings::{Default, Setting};

/// What a file gives: valid values only, and where each stands.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) values: Table,
    pub(super) places: HashMap<String, Range<usize>>,
}

/// Reads a file's text against `settings`; `None`: it is no TOML. What the parser makes of such a text is a guess, and faults
/// of a guess would send people to the wrong place.
pub(super) fn read(text: &str, settings: &'static [Setting], diagnostics: &mut Diagnostics) -> Option<Given> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let is_toml = errors.is_empty();
    for error in errors {
        let place = Place::At(error.span().unwrap_or(0..0));
        diagnostics.error(place, "", error.message().replace('\n', "; "), "");
    }
    if !is_toml {
        return None;
    }
    let mut walk = Walk { text, diagnostics, places: HashMap::new() };
    let values = walk.table("", document.get_ref(), 0..0, settings, true);
    Some(Given { values, places: walk.places })
}

struct Walk<'a> {
    text: &'a str,
    diagnostics: &'a mut Diagnostics,
    places: HashMap<String, Range<usize>>,
}

impl Walk<'_> {
    fn table(
        &mut self,
        path: &str,
        table: &DeTable<'_>,
        span: Range<usize>,
        settings: &'static [Setting],
        requires: bool,
    ) -> Table {
        let mut values = Table::new();
        for (key, value) in table {
            let name: &str = key.get_ref();
            let path = join(path, name);
            let Some(setting) = settings.iter().find(|s| s.name == name) else {
                self.unknown(key, &path, settings);
                continue;
            };
            self.places.insert(path.clone(), value.span());
            if let Some(value) = self.value(&path, value, &setting.kind) {
                values.insert(name.to_owned(), value);
            }
        }
        let given = |name: &str| table.keys().any(|key| key.get_ref() == name);
        for setting in settings.iter().filter(|s| requires && matches!(s.default, Default::Required)) {
            if !given(setting.name) {
                let path = join(path, setting.name);
                let allowed = setting.kind.describe();
                self.diagnostics.error(Place::At(span.clone()), &path, "it is missing".into(), &allowed);
            }
        }
        values
    }

    fn unknown(&mut self, key: &Spanned<toml::de::DeString<'_>>, path: &str, settings: &[Setting]) {
        let name: &str = key.get_ref();
        let names = || settings.iter().map(|s| s.name);
        let near = names()
            .map(|known| (strsim::damerau_levenshtein(name, known), known))
            .min()
            .filter(|(distance, known)| *distance <= known.len() / 3 + 1);
        let found = match near {
            Some((_, known)) => format!("there is no such setting; did you mean `{known}`?"),
            None => "there is no such setting".into(),
        };
        let allowed = names().collect::<Vec<_>>().join(", ");
        self.diagnostics.error(Place::At(key.span()), path, found, &allowed);
    }

    fn value(&mut self, path: &str, value: &Spanned<DeValue<'_>>, kind: &Kind) -> Option<Value> {
        match (kind, value.get_ref()) {
            (Kind::Table(settings), DeValue::Table(table)) => {
                Some(self.table(path, table, value.span(), settings, true).into())
            }
            (Kind::Overrides(settings), DeValue::Table(table)) => {
                Some(self.table(path, table, value.span(), settings, false).into())
            }
            (Kind::Tables(settings), DeValue::Array(array)) => {
                Some(self.tables(path, value, array, settings))
            }
            (Kind::List(item), DeValue::Array(array)) => {
                let mut items = Vec::new();
                for (i, element) in array.iter().enumerate() {
                    let path = format!("{path}[{i}]");
                    self.places.insert(path.clone(), element.span());
                    items.extend(self.value(&path, element, item));
                }
                Some(items.into())
            }
            (Kind::Map(key, item), DeValue::Table(table)) => {
                let mut map = Table::new();
                for (name, element) in table {
                    let path = join(path, name.get_ref());
                    if key.allows(name.get_ref()) {
                        map.extend(self.value(&path, element, item).map(|v| (name.get_ref().to_string(), v)));
                    } else {
                        let found = format!("the key {:?}", name.get_ref());
                        self.diagnostics.error(Place::At(name.span()), &path, found, key.describe());
                    }
                }
                Some(map.into())
            }
            (kind, found) => match scalar(kind, found) {
                Some(value) => Some(value),
                None => {
                    let found = self.text.get(value.span()).unwrap_or(found.type_str());
                    let found = found.lines().next().unwrap_or_default().to_owned();
                    self.diagnostics.error(Place::At(value.span()), path, found, &kind.describe());
                    None
                }
            },
        }
    }

    fn tables(
        &mut self,
        path: &str,
        value: &Spanned<DeValue<'_>>,
        array: &toml::de::DeArray<'_>,
        settings: &'static [Setting],
    ) -> Value {
        let mut tables = Vec::new();
        for (i, element) in array.iter().enumerate() {
            let path = format!("{path}[{i}]");
            self.places.insert(path.clone(), element.span());
            match element.get_ref() {
                DeValue::Table(table) => {
                    tables.push(self.table(&path, table, element.span(), settings, true).into());
                }
                other => {
                    let found = format!("a {}", other.type_str());
                    self.diagnostics.error(Place::At(value.span()), &path, found, "a table");
                }
            }
        }
        Value::Array(tables)
    }
}

/// A value of a kind that stands alone, if it is allowed.
fn scalar(kind: &Kind, value: &DeValue<'_>) -> Option<Value> {
    match (kind, value) {
        (Kind::Bool, DeValue::Boolean(on)) => Some((*on).into()),
        (Kind::Int { min, max }, DeValue::Integer(number)) => {
            let number = u64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok()?;
            (*min..=*max).contains(&number).then_some(Value::Integer(number as i64))
        }
        (Kind::Size { min, max, percent }, DeValue::String(text)) => {
            let is_share = *percent && kind::parse_percent(text).is_some();
            let is_size = kind::parse_size(text).is_some_and(|size| (*min..=*max).contains(&size));
            (is_share || is_size).then(|| text.to_string().into())
        }
        (Kind::Size { min, max, .. }, DeValue::Integer(number)) => {
            let size = number.as_str().replace('_', "").parse().ok()?;
            (*min..=*max).contains(&size).then(|| size.to_string().into())
        }
        (Kind::Duration { min_ms, max_ms, may_be_empty }, DeValue::String(text)) => {
            let is_empty = *may_be_empty && text.is_empty();
            let ms = kind::parse_duration(text).map(|d| d.as_millis() as u64);
            (is_empty || ms.is_some_and(|ms| (*min_ms..=*max_ms).contains(&ms)))
                .then(|| text.to_string().into())
        }
        (Kind::Text(format), DeValue::String(text)) => format.allows(text).then(|| text.to_string().into()),
        (Kind::OneOf(words), DeValue::String(text)) => {
            words.contains(&&**text).then(|| text.to_string().into())
        }
        (Kind::Time, DeValue::Datetime(time)) => {
            // A local time is ambiguous: when is it where?
            (time.date.is_some() && time.time.is_some() && time.offset.is_some())
                .then(|| Value::String(time.to_string()))
        }
        _ => None,
    }
}

/// Fills in what is not given. `profile` chooses between a site's defaults.
pub(super) fn fill(table: &mut Table, settings: &'static [Setting], profile: &str) {
    for setting in settings {
        let default = match setting.default {
            Default::Required | Default::Absent => None,
            Default::Value(text) => Some(text),
            Default::ByProfile { edge, rfc } => Some(if profile == "rfc" { rfc } else { edge }),
        };
        if let Some(text) = default
            && !table.contains_key(setting.name)
            && let Some(value) = parse_default(text)
        {
            table.insert(setting.name.to_owned(), value);
        }
        match (&setting.kind, table.get_mut(setting.name)) {
            (Kind::Table(inner), Some(Value::Table(inner_table))) => {
                let profile = match inner_table.get("profile") {
                    Some(Value::String(profile)) => profile.clone(),
                    _ => profile.to_owned(),
                };
                fill(inner_table, inner, &profile);
            }
            (Kind::Tables(inner), Some(Value::Array(tables))) => {
                for inner_table in tables.iter_mut().filter_map(Value::as_table_mut) {
                    fill(inner_table, inner, profile);
                }
            }
            _ => {}
        }
    }
}

pub(super) fn parse_default(text: &str) -> Option<Value> {
    format!("v = {text}").parse::<Table>().ok()?.remove("v")
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
