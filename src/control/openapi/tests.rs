use std::collections::BTreeSet;
use std::path::Path;

use super::*;

/// Every path and method that a router in this folder's source is given.
fn routes() -> BTreeSet<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/control");
    let mut files = vec![folder];
    let mut routes = BTreeSet::new();
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("openapi/tests.rs") {
            let text: String = std::fs::read_to_string(path).unwrap().split_whitespace().collect();
            for call in text.split(".route(\"").skip(1) {
                let (path, rest) = call.split_once('"').unwrap();
                // To the end of the chain: the parenthesis that closes the call.
                let mut depth = 1;
                let end = rest.find(|c| {
                    depth += i32::from(c == '(') - i32::from(c == ')');
                    depth == 0
                });
                let methods = &rest[..end.unwrap()];
                for method in ["get", "post", "put", "patch", "delete"] {
                    if methods.contains(&format!(",{method}(")) || methods.contains(&format!(".{method}(")) {
                        routes.insert((path.to_owned(), method.to_owned()));
                    }
                }
            }
        }
    }
    routes
}

#[test]
fn every_route_is_documented_and_nothing_else() {
    let documented: BTreeSet<_> = all().map(|call| (call.path.to_owned(), call.method.to_owned())).collect();
    let routes = routes();
    assert!(routes.len() >= 13, "{routes:?}");
    let missing: Vec<_> = routes.difference(&documented).collect();
    assert!(missing.is_empty(), "add to openapi's calls: {missing:?}");
    let gone: Vec<_> = documented.difference(&routes).collect();
    assert!(gone.is_empty(), "take out of openapi's calls: {gone:?}");
}

/// What `OpenAPI` 3.1 asks for and a table can get wrong.
#[test]
fn the_document_is_sound() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        assert!(path.starts_with('/'));
        for operation in item.as_object().unwrap().values() {
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{operation}");
            assert!(!operation["responses"].as_object().unwrap().is_empty(), "{operation}");
            let names = operation["parameters"].as_array().unwrap().iter();
            let names: Vec<_> =
                names.map(|p| (p["name"].as_str().unwrap(), p["in"].as_str().unwrap())).collect();
            let distinct: BTreeSet<_> = names.iter().collect();
            assert_eq!(distinct.len(), names.len());
            for template in path.split('/').filter(|part| part.starts_with('{')) {
                assert!(names.contains(&(template.trim_matches(['{', '}']), "path")), "{path}");
            }
        }
    }
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let (pointer, _) = reference.split_once('"').unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(text.contains(&format!("#/components/schemas/{name}\"")), "{name} is of no use");
    }
}

#[test]
fn calls_of_other_caches_have_their_own_errors_and_tokens() {
    let document = document();
    let operation = |path: &str, method: &str| document["paths"][path][method].clone();
    let purge_cache = "/client/v4/zones/{zone}/purge_cache";
    for (path, method, schema) in [
        ("/purge/{url}", "post", "FastlyError"),
        ("/service/{id}/purge/{key}", "post", "FastlyError"),
        ("/service/{id}/purge", "post", "FastlyError"),
        ("/service/{id}/purge_all", "post", "FastlyError"),
        (purge_cache, "post", "CloudflareAnswer"),
        (purge_cache, "delete", "CloudflareAnswer"),
    ] {
        let operation = operation(path, method);
        let error = &operation["responses"]["default"]["content"]["application/json"]["schema"]["$ref"];
        assert_eq!(error, &format!("#/components/schemas/{schema}"), "{path}");
        let schemes = operation["security"].as_array().unwrap().iter();
        let names: Vec<&String> = schemes.flat_map(|scheme| scheme.as_object().unwrap().keys()).collect();
        assert_eq!(names, ["token", "fastlyKey", "authKey"], "{path}");
        for name in names {
            assert!(document["components"]["securitySchemes"][name].is_object(), "{name}");
        }
    }
    let keys = operation("/service/{id}/purge", "post");
    assert_eq!(keys["requestBody"]["required"], false);
    let fields: Vec<_> = keys["parameters"].as_array().unwrap().iter().map(|p| p["name"].clone()).collect();
    assert_eq!(fields, ["id", "Surrogate-Key", "Fastly-Soft-Purge", "Idempotency-Key"]);
    let own = operation("/v1/purges", "post");
    assert!(
        own["security"].is_null() && own["responses"]["default"]["content"]["application/json"].is_null()
    );
}
