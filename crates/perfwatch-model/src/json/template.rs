//! JSON template: the text between the values of a snapshot.
//!
//! The nesting depends on the columns only, so a shape builds its template once and caches it.

use super::push_json;
use crate::column::{Column, instance_path};

/// Value that is inserted after a text segment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Placeholder {
    /// Value of the column with this index.
    Value(usize),
    /// List of the top processes.
    Processes,
}

/// JSON text around the values of a shape.
#[derive(Debug)]
pub struct JsonTemplate {
    /// Text segments, each followed by the value that its placeholder names.
    pub(super) segments: Vec<(String, Placeholder)>,
    /// Text after the last value.
    pub(super) tail: String,
}

enum JsonNode {
    Leaf(Placeholder),
    Branch(Vec<(String, JsonNode)>),
}

impl JsonNode {
    fn insert(&mut self, path: &[&str], placeholder: Placeholder) {
        match self {
            JsonNode::Branch(children) => {
                let (first, remaining) = path.split_first().unwrap_or((&"", &[]));
                let index = children.iter().position(|(key, _)| key == first).unwrap_or_else(|| {
                    children.push(((*first).to_owned(), JsonNode::Branch(Vec::new())));
                    children.len() - 1
                });
                let child = &mut children[index].1;
                match child {
                    // An empty branch at the end of the path becomes the leaf.
                    JsonNode::Branch(inner) if remaining.is_empty() && inner.is_empty() => {
                        *child = JsonNode::Leaf(placeholder);
                    }
                    _ => child.insert(remaining, placeholder),
                }
            }
            // Duplicate names: the first value wins.
            JsonNode::Leaf(_) if path.is_empty() => {}
            // A name that is also a group (`load` and `load.one`) becomes a group; its value moves
            // under the empty key.
            JsonNode::Leaf(existing) => {
                let mut branch = JsonNode::Branch(vec![(String::new(), JsonNode::Leaf(*existing))]);
                branch.insert(path, placeholder);
                *self = branch;
            }
        }
    }

    fn write(&self, text: &mut String, segments: &mut Vec<(String, Placeholder)>) {
        match self {
            JsonNode::Leaf(placeholder) => segments.push((std::mem::take(text), *placeholder)),
            JsonNode::Branch(children) => {
                text.push('{');
                for (index, (key, child)) in children.iter().enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    push_json(text, key);
                    text.push(':');
                    child.write(text, segments);
                }
                text.push('}');
            }
        }
    }
}

impl JsonTemplate {
    pub(crate) fn new(columns: &[Column]) -> Self {
        let mut root = JsonNode::Branch(Vec::new());
        let mut sorted: Vec<usize> = (0..columns.len()).collect();
        // Metrics of a group are adjacent in the text, regardless of the column order.
        sorted.sort_by_key(|&index| columns[index].metric.split('.').next().map(str::to_owned));
        for index in sorted {
            let column = &columns[index];
            let node;
            let mut path: Vec<&str>;
            if column.dimension.is_empty() || column.instance.is_empty() {
                path = column.metric.split('.').collect();
            } else {
                node = instance_path(&column.metric, &column.dimension);
                path = node.split('.').collect();
                path.push(&column.instance);
                path.push(column.metric.rsplit('.').next().unwrap_or_default());
            }
            root.insert(&path, Placeholder::Value(index));
        }
        root.insert(&["processes", "top"], Placeholder::Processes);
        let (mut text, mut segments) = (String::new(), Vec::new());
        root.write(&mut text, &mut segments);
        // `write_snapshot` writes the opening brace, because the snapshot's own keys come first.
        if let Some((first, _)) = segments.first_mut() {
            first.remove(0);
        }
        Self { segments, tail: text }
    }
}
