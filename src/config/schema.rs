//! The table of settings as a JSON Schema (2020-12), for editors.

use serde_json::{Map, Value, json};

use super::check::parse_default;
use super::kind::{Format, Kind};
use super::settings::{Default, ROOT, Setting};

/// The schema of a configuration file.
pub fn json_schema() -> Value {
    let mut schema = table(ROOT, true);
    if let Value::Object(root) = &mut schema {
        root.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        root.insert("title".into(), "Larder configuration".into());
    }
    schema
}

fn table(settings: &[Setting], has_defaults: bool) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for setting in settings {
        let mut schema = kind(&setting.kind);
        if let Value::Object(schema) = &mut schema {
            schema.insert("description".into(), setting.doc.into());
            if has_defaults {
                schema.extend(default(setting).map(|value| ("default".into(), value)));
            }
        }
        if has_defaults && matches!(setting.default, Default::Required) {
            required.push(setting.name);
        }
        properties.insert(setting.name.into(), schema);
    }
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn default(setting: &Setting) -> Option<Value> {
    let text = match setting.default {
        Default::Value(text) | Default::ByProfile { edge: text, .. } => text,
        Default::Required | Default::Absent => return None,
    };
    serde_json::to_value(parse_default(text)?).ok()
}

fn kind(kind: &Kind) -> Value {
    match kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Int { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Size { percent, .. } => {
            let share = if *percent { "|[0-9]+%" } else { "" };
            let pattern = format!("^([0-9]+([KMGT]i?B|B)?{share})$");
            json!({ "type": ["string", "integer"], "pattern": pattern, "$comment": self::kind_text(kind) })
        }
        Kind::Duration { may_be_empty, .. } => {
            let pattern = if *may_be_empty { "^([0-9]+(ms|[smhdw]))?$" } else { "^[0-9]+(ms|[smhdw])$" };
            json!({ "type": "string", "pattern": pattern, "$comment": self::kind_text(kind) })
        }
        Kind::Text(format) => text(*format),
        Kind::OneOf(words) => json!({ "type": "string", "enum": words }),
        Kind::List(item) => json!({ "type": "array", "items": self::kind(item) }),
        Kind::Table(settings) => table(settings, true),
        Kind::Overrides(settings) => table(settings, false),
        Kind::Tables(settings) => json!({ "type": "array", "items": table(settings, true) }),
        Kind::Map(_, value) => json!({ "type": "object", "additionalProperties": self::kind(value) }),
        Kind::Time => json!({ "type": "string", "format": "date-time" }),
    }
}

fn kind_text(kind: &Kind) -> String {
    kind.describe()
}

fn text(format: Format) -> Value {
    json!({ "type": "string", "$comment": format.describe() })
}
