//! `GET /openapi.json`: what can be called, as `OpenAPI` 3.1. Made from a table of the calls; a test compares the table with
//! the routes in this folder's source.

mod calls;
mod more;
mod schemas;

use axum::Json;
use serde_json::{Map, Value, json};

use calls::{CALLS, Call, JSON, Scope};
use more::MORE_CALLS;

/// `GET /openapi.json`, for everybody.
pub(super) async fn openapi() -> Json<Value> {
    Json(document())
}

fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for call in all() {
        // A path's rest is one parameter here.
        let path = paths.entry(call.path.replace("{*", "{")).or_insert_with(|| json!({}));
        path[call.method] = operation(call);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Larder admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of the configuration, or the one in admin.token of the store's directory",
                },
                "fastlyKey": key("Fastly-Key"),
                "authKey": key("X-Auth-Key"),
            },
            "schemas": schemas::schemas(),
        },
    })
}

/// Where clients of other caches have their token.
fn key(field: &str) -> Value {
    json!({ "type": "apiKey", "in": "header", "name": field, "description": "The same token" })
}

fn all() -> impl Iterator<Item = &'static Call> {
    CALLS.iter().chain(MORE_CALLS)
}

fn operation(call: &Call) -> Value {
    let mut operation = json!({
        "operationId": call.id,
        "summary": call.summary,
        "parameters": parameters(call),
        "responses": responses(call),
    });
    if let Some((schema, is_required)) = call.body {
        operation["requestBody"] = json!({ "required": is_required, "content": content(JSON, schema) });
    }
    match call.scope {
        Scope::Open => operation["security"] = json!([]),
        Scope::Needs(scope) => operation["description"] = json!(format!("Needs a token of scope {scope}.")),
    }
    if call.foreign_error.is_some() {
        operation["security"] = json!([{ "token": [] }, { "fastlyKey": [] }, { "authKey": [] }]);
    }
    operation
}

fn parameters(call: &Call) -> Vec<Value> {
    let in_path = call.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path = in_path.map(|name| name.trim_start_matches('*'));
    let in_path = in_path
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let in_query = call.query.iter().map(|(name, kind, about)| {
        json!({ "name": name, "in": "query", "description": about, "schema": { "type": kind } })
    });
    let fields = call.fields.iter().map(|(name, about)| {
        json!({ "name": name, "in": "header", "description": about, "schema": { "type": "string" } })
    });
    let key = (call.method == "post").then(|| {
        json!({
            "name": "Idempotency-Key",
            "in": "header",
            "description": "The same request under the same key is done once within 24 hours",
            "schema": { "type": "string", "minLength": 1, "maxLength": 255 },
        })
    });
    in_path.chain(in_query).chain(fields).chain(key).collect()
}

fn responses(call: &Call) -> Map<String, Value> {
    let mut responses: Map<String, Value> = Map::new();
    for (status, about, kind, schema) in call.answers {
        responses
            .insert(status.to_string(), json!({ "description": about, "content": content(kind, schema) }));
    }
    if call.scope == Scope::Open {
        return responses;
    }
    // What is wrong with an Idempotency-Key is told by problem JSON also where the call itself has another form.
    let mut errors = content("application/problem+json", "Problem");
    if let Some(schema) = call.foreign_error {
        errors[JSON] = content(JSON, schema)[JSON].take();
    }
    let about = "Why not: 400, 401, 403, 404, 409, 413, 422, 429 or 503";
    responses.insert("default".into(), json!({ "description": about, "content": errors }));
    responses
}

fn content(kind: &str, schema: &str) -> Value {
    json!({ kind: { "schema": reference(schema) } })
}

fn reference(schema: &str) -> Value {
    match schema {
        "string" => json!({ "type": "string" }),
        name => json!({ "$ref": format!("#/components/schemas/{name}") }),
    }
}

#[cfg(test)]
mod tests;
