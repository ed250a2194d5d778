//! Variables that templates change in loops: `{% set n.total = n.total + 1 %}`. The namespaces of the engine
//! may contain each other, which leaks their memory or nests them as deep as a loop runs.

use crate::template_budget::{Budget, too_complex};
use minijinja::value::{Enumerator, Kwargs, Object, ValueKind};
use minijinja::{Environment, Error, State, Value};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Attributes that a template assigned. Their values are copies without namespaces or functions.
#[derive(Debug, Default)]
struct Namespace(Mutex<BTreeMap<String, Value>>);

impl Namespace {
    fn set(&self, name: &str, value: &Value, budget: &Budget) -> Result<(), Error> {
        let value = copy_data(&budget.count(value.clone())?)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), value);
        Ok(())
    }
}

impl Object for Namespace {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key.as_str()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let attributes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Enumerator::Values(attributes.keys().cloned().map(Value::from).collect())
    }
}

/// Copy of lists and maps, whose depth and size were counted before.
fn copy_data(value: &Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            value.try_iter()?.map(|item| copy_data(&item)).collect::<Result<Vec<_>, _>>().map(Value::from)
        }
        ValueKind::Map => {
            let copy_pair = |key: Value| Ok((key.clone(), copy_data(&value.get_item(&key)?)?));
            let pairs = value.try_iter()?.map(copy_pair).collect::<Result<BTreeMap<_, _>, Error>>()?;
            Ok(Value::from_object(pairs))
        }
        ValueKind::Plain => {
            Err(too_complex("a namespace contains texts, numbers, lists and maps".to_owned()))
        }
        _ => Ok(value.clone()),
    }
}

/// Adds the function `namespace`.
pub(crate) fn add_namespace(environment: &mut Environment<'_>, budget: &Budget) {
    let budget = budget.clone();
    environment.add_function("namespace", move |attributes: Kwargs| {
        let namespace = Namespace::default();
        for name in attributes.args() {
            namespace.set(name, &attributes.get(name)?, &budget)?;
        }
        Ok(Value::from_object(namespace))
    });
}

/// Assignment to an attribute of a variable.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AttributeAssignment {
    variable: String,
    attribute: String,
    /// Name of the function that performs the assignment; a template cannot name it.
    pub(crate) function: String,
}

impl AttributeAssignment {
    pub(crate) fn new(variable: &str, attribute: &str) -> Self {
        let function = format!("set {variable}.{attribute}");
        Self { variable: variable.to_owned(), attribute: attribute.to_owned(), function }
    }

    /// Adds the function that performs the assignment.
    pub(crate) fn add_function(&self, environment: &mut Environment<'_>, budget: &Budget) {
        let (variable, attribute, budget) = (self.variable.clone(), self.attribute.clone(), budget.clone());
        environment.add_function(self.function.clone(), move |state: &State<'_, '_>, value: Value| {
            let target = state.lookup(&variable);
            let namespace = target.as_ref().and_then(|target| target.downcast_object_ref::<Namespace>());
            let namespace = namespace.ok_or_else(|| too_complex(format!("{variable} is not a namespace")))?;
            namespace.set(&attribute, &value, &budget)
        });
    }
}
