//! `GET /openapi.json`: what can be called, as `OpenAPI` 3.1. Made from a table of the calls; a test compares the table with
//! the routes in this folder's source.

mod calls;
mod more;
mod schemas;

use axum::Json;
use serde_json::{Map, Value, json};

use calls::{CALLS, Call, Scope};
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
            },
            "schemas": schemas::schemas(),
        },
    })
}

fn all() -> impl Iterator<Item = &'static Call> {
    CALLS.iter().chain(MORE_CALLS)
}

fn operation(call: &Call) -> Value {
    let in_path = call.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path = in_path.map(|name| name.trim_start_matches('*'));
    let in_path = in_path
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let in_query = call.query.iter().map(|(name, kind, about)| {
        json!({ "name": name, "in": "query", "description": about, "schema": { "type": kind } })
    });
    let key = (call.method == "post").then(|| {
        json!({
            "name": "Idempotency-Key",
            "in": "header",
            "description": "The same request under the same key is done once within 24 hours",
            "schema": { "type": "string", "minLength": 1, "maxLength": 255 },
        })
    });
    let parameters: Vec<Value> = in_path.chain(in_query).chain(key).collect();
    let content = |kind: &str, schema: &str| json!({ kind: { "schema": reference(schema) } });
    let mut responses: Map<String, Value> = Map::new();
    for (status, about, kind, schema) in call.answers {
        responses
            .insert(status.to_string(), json!({ "description": about, "content": content(kind, schema) }));
    }
    if call.scope != Scope::Open {
        let problem = json!({
            "description": "Why not: 400, 401, 403, 404, 409, 413, 422, 429 or 503",
            "content": content("application/problem+json", "Problem"),
        });
        responses.insert("default".into(), problem);
    }
    let mut operation = json!({
        "operationId": call.id,
        "summary": call.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(schema) = call.body {
        operation["requestBody"] =
            json!({ "required": true, "content": content("application/json", schema) });
    }
    match call.scope {
        Scope::Open => operation["security"] = json!([]),
        Scope::Needs(scope) => operation["description"] = json!(format!("Needs a token of scope {scope}.")),
    }
    operation
}

fn reference(schema: &str) -> Value {
    match schema {
        "string" => json!({ "type": "string" }),
        name => json!({ "$ref": format!("#/components/schemas/{name}") }),
    }
}

#[cfg(test)]
mod tests;
