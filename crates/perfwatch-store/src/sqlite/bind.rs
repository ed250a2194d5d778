//! Binds parameters `$1`, `$2`… which SQLite treats as names.

use crate::sql::SqlValue;
use rusqlite::Statement;

pub(super) fn bind(statement: &mut Statement<'_>, values: &[SqlValue]) -> rusqlite::Result<()> {
    for (at, value) in values.iter().enumerate() {
        if let Some(index) = statement.parameter_index(&format!("${}", at + 1))? {
            statement.raw_bind_parameter(index, value)?;
        }
    }
    Ok(())
}
