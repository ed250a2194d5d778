//! Formulas over the values of queries: parser and evaluation.

/// Maximum length of a formula.
const MAX_FORMULA_LEN: usize = 200;
/// Maximum nesting of parentheses and signs.
const MAX_DEPTH: usize = 32;

/// Arithmetic operation on two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
}

impl Operator {
    /// Applies the operation. A gap, and a division by zero, is a gap (`NaN`).
    fn apply(self, left: f64, right: f64) -> f64 {
        let result = match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => left / right,
        };
        if result.is_finite() { result } else { f64::NAN }
    }
}

/// Step of a formula in postfix order.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Number(f64),
    /// Value of the query with this index.
    Query(usize),
    Negate,
    Apply(Operator),
}

/// Parsed formula.
#[derive(Debug, Clone, PartialEq)]
pub struct Formula {
    steps: Vec<Step>,
    /// Indices of the queries that the formula uses, in ascending order.
    queries: Vec<usize>,
}

impl Formula {
    /// Parses an expression over queries with these ids.
    ///
    /// # Errors
    /// Returns a message with the position of the error, also for a formula without a query.
    pub fn parse(text: &str, queries: &[&str]) -> Result<Self, String> {
        if text.len() > MAX_FORMULA_LEN {
            return Err(format!("longer than {MAX_FORMULA_LEN} characters"));
        }
        let mut parser = Parser { text, at: 0, queries, steps: Vec::new() };
        parser.sum(0)?;
        if parser.peek().is_some() {
            return Err(parser.unexpected());
        }
        let mut used: Vec<usize> = parser
            .steps
            .iter()
            .filter_map(|step| if let Step::Query(index) = step { Some(*index) } else { None })
            .collect();
        used.sort_unstable();
        used.dedup();
        if used.is_empty() {
            return Err("uses no query; expected an id such as A".to_owned());
        }
        Ok(Self { steps: parser.steps, queries: used })
    }

    /// Indices of the queries that the formula uses, in ascending order.
    pub fn queries(&self) -> &[usize] {
        &self.queries
    }

    /// Value of the formula at a point. `value` returns the value of a query, `NaN` for a gap.
    pub fn evaluate(&self, value: impl Fn(usize) -> f64) -> f64 {
        let mut stack: Vec<f64> = Vec::with_capacity(8);
        for step in &self.steps {
            let next = match step {
                Step::Number(number) => *number,
                Step::Query(index) => value(*index),
                Step::Negate => -stack.pop().unwrap_or(f64::NAN),
                Step::Apply(operator) => {
                    let right = stack.pop().unwrap_or(f64::NAN);
                    operator.apply(stack.pop().unwrap_or(f64::NAN), right)
                }
            };
            stack.push(next);
        }
        stack.pop().unwrap_or(f64::NAN)
    }
}

/// Recursive descent with the usual precedence.
struct Parser<'a> {
    text: &'a str,
    at: usize,
    queries: &'a [&'a str],
    steps: Vec<Step>,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    /// Next character that is not a space.
    fn peek(&mut self) -> Option<char> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        self.rest().chars().next()
    }

    fn unexpected(&self) -> String {
        format!("unexpected character at position {}", self.at + 1)
    }

    /// Consumes the next character if it is an operator of the list.
    fn operator(&mut self, operators: &[(char, Operator)]) -> Option<Operator> {
        let next = self.peek()?;
        let (c, operator) = operators.iter().find(|(c, _)| *c == next)?;
        self.at += c.len_utf8();
        Some(*operator)
    }

    fn sum(&mut self, depth: usize) -> Result<(), String> {
        self.product(depth)?;
        while let Some(operator) = self.operator(&[('+', Operator::Add), ('-', Operator::Subtract)]) {
            self.product(depth)?;
            self.steps.push(Step::Apply(operator));
        }
        Ok(())
    }

    fn product(&mut self, depth: usize) -> Result<(), String> {
        self.operand(depth)?;
        while let Some(operator) = self.operator(&[('*', Operator::Multiply), ('/', Operator::Divide)]) {
            self.operand(depth)?;
            self.steps.push(Step::Apply(operator));
        }
        Ok(())
    }

    fn operand(&mut self, depth: usize) -> Result<(), String> {
        if depth >= MAX_DEPTH {
            return Err(format!("nested more than {MAX_DEPTH} times"));
        }
        match self.peek() {
            None => Err("ends where a query or number is expected".to_owned()),
            Some('-') => {
                self.at += 1;
                self.operand(depth + 1)?;
                self.steps.push(Step::Negate);
                Ok(())
            }
            Some('(') => {
                self.at += 1;
                self.sum(depth + 1)?;
                match self.peek() {
                    Some(')') => {
                        self.at += 1;
                        Ok(())
                    }
                    Some(_) => Err(self.unexpected()),
                    None => Err("missing )".to_owned()),
                }
            }
            Some(c) if c.is_ascii_digit() || c == '.' => self.number(),
            Some(c) if c.is_ascii_alphabetic() => self.query(),
            Some(_) => Err(self.unexpected()),
        }
    }

    /// Length of the prefix whose characters match.
    fn span(&self, is_part: impl Fn(char) -> bool) -> usize {
        self.rest().find(|c| !is_part(c)).unwrap_or(self.rest().len())
    }

    fn number(&mut self) -> Result<(), String> {
        let len = self.span(|c| c.is_ascii_digit() || c == '.');
        let text = &self.rest()[..len];
        let number: f64 = text.parse().map_err(|_| format!("invalid number at position {}", self.at + 1))?;
        self.at += len;
        self.steps.push(Step::Number(number));
        Ok(())
    }

    fn query(&mut self) -> Result<(), String> {
        let len = self.span(|c| c.is_ascii_alphanumeric() || c == '_');
        let id = &self.rest()[..len];
        let index = self.queries.iter().position(|query| *query == id);
        let index = index.ok_or_else(|| format!("unknown query at position {}", self.at + 1))?;
        self.at += len;
        self.steps.push(Step::Query(index));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(expression: &str) -> Result<Formula, String> {
        Formula::parse(expression, &["A", "B", "io_wait"])
    }

    #[test]
    fn formulas_follow_the_usual_precedence() {
        let values = [6.0, 4.0, 0.5];
        for (expression, expected, used) in [
            ("A", 6.0, vec![0]),
            ("A + B * 2", 14.0, vec![0, 1]),
            ("(A + B) * 2", 20.0, vec![0, 1]),
            ("A - B - 1", 1.0, vec![0, 1]),
            ("A / B / 2", 0.75, vec![0, 1]),
            ("A / B * 100", 150.0, vec![0, 1]),
            ("-A + --B", -2.0, vec![0, 1]),
            ("  ( ( io_wait ) )*.5", 0.25, vec![2]),
            ("1.5*A-2*(B-1)", 3.0, vec![0, 1]),
        ] {
            let formula = parse(expression).unwrap();
            assert_eq!(formula.evaluate(|index| values[index]), expected, "{expression}");
            assert_eq!(formula.queries, used, "{expression}");
        }
    }

    #[test]
    fn gaps_stay_gaps_and_division_by_zero_is_a_gap() {
        for (expression, a, b) in [
            ("A + B", f64::NAN, 1.0),
            ("A * 0", f64::NAN, 1.0),
            ("A / B", 1.0, 0.0),
            ("A / B", 0.0, 0.0),
            ("1 / (A / B)", 1.0, 0.0),
            ("A * B", 1e300, 1e300),
        ] {
            let formula = parse(expression).unwrap();
            assert!(formula.evaluate(|index| [a, b][index]).is_nan(), "{expression}");
        }
    }

    #[test]
    fn invalid_formulas_are_rejected_with_their_position() {
        let deep = "(".repeat(100);
        let long = "A+".repeat(150);
        for (expression, expected) in [
            ("", "ends where a query or number is expected"),
            ("1 + 2", "uses no query"),
            ("A +", "ends where"),
            ("A B", "unexpected character at position 3"),
            ("A ** B", "unexpected character at position 4"),
            ("(A", "missing )"),
            ("A)", "unexpected character at position 2"),
            ("A % 2", "unexpected character at position 3"),
            ("A + é", "unexpected character at position 5"),
            ("C", "unknown query at position 1"),
            ("1.2.3 * A", "invalid number at position 1"),
            (&deep, "nested more than 32 times"),
            (&long, "longer than 200 characters"),
        ] {
            let error = parse(expression).unwrap_err();
            assert!(error.contains(expected), "{expression}: {error}");
        }
    }
}
