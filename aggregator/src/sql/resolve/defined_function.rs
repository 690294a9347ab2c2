//! Calls of defined functions: the expression of the definition, over the arguments of the call.

use std::{ops::ControlFlow, rc::Rc};

use datafusion::sql::sqlparser::ast::{self, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments};
use front::{Node, Root};
use proto::{
    Problem,
    catalog::{DefinitionId, DefinitionKind, VersionRef},
};

use super::{
    problem::{bad, not_offered},
    resolver::Resolver,
    scope::{Input, InputKind, OutputColumn, Scope},
};
use crate::sql::signature::{FunctionText, Parameter};

impl<'c> Resolver<'c> {
    /// Resolves a call of a defined function: `euros(x)`, `euros@2(x)`. Returns None if no function is defined under this
    /// name.
    pub(super) fn defined_function(&mut self, name: &str, call: &Function) -> Result<Option<Expr>, Problem> {
        let exists = |name: &str| {
            let id = DefinitionId::global(DefinitionKind::Function, name);
            self.catalog.definitions.contains_key(&id).then_some(id)
        };
        let (id, version) = match (exists(name), name.rsplit_once('@')) {
            (Some(id), _) => (id, VersionRef::latest()),
            (None, Some((name, version))) if let Some(id) = exists(name) => (id, VersionRef::parse(version)?),
            _ => return Ok(None),
        };
        let version = self.used(&id, &version)?;
        let function = FunctionText::parse(&version.text)?;
        let arguments = arguments(&id, &function, call)?;
        // The arguments belong to the caller, not to the function.
        let columns = self.argument_columns(&function, arguments)?;
        self.expand(&id, version.number, |resolver| {
            resolver.function_body(&id, &function, columns)
        })
        .map(Some)
    }

    /// The parameters of a function as columns that are computed by these arguments.
    pub(in crate::sql) fn argument_columns(
        &mut self,
        function: &FunctionText,
        arguments: Vec<Expr>,
    ) -> Result<Rc<[OutputColumn]>, Problem> {
        let column = |(parameter, argument): (&Parameter, Expr)| {
            let begun = self.resolved();
            let value = self.cast(ast::CastKind::Cast, &argument, parameter.data_type.clone())?;
            let uses = uses_of(&parameter.name, &function.body);
            self.charge_copies(uses.saturating_sub(1), begun)?;
            self.charge_expression(uses.saturating_sub(1), &value)?;
            Ok(OutputColumn {
                name: parameter.name.clone(),
                origin: None,
                expr: Some(value),
            })
        };
        function.parameters.iter().zip(arguments).map(column).collect()
    }

    /// The expression of a function over its parameters.
    pub(in crate::sql) fn function_body(
        &mut self,
        id: &DefinitionId,
        function: &FunctionText,
        columns: Rc<[OutputColumn]>,
    ) -> Result<Expr, Problem> {
        let (body, returns) = (&function.body, function.returns.clone());
        self.within(&id.name, InputKind::Columns(columns), |resolver| {
            resolver.cast(ast::CastKind::Cast, body, returns)
        })
    }

    /// Runs `inside` in a scope of one input, with no other in sight.
    pub(in crate::sql) fn within<T>(
        &mut self,
        alias: &str,
        kind: InputKind<'c>,
        inside: impl FnOnce(&mut Self) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let alias = alias.to_owned();
        self.scopes.push(Scope {
            inputs: vec![Input {
                alias,
                kind,
                relation: None,
            }],
            closed: true,
            ..Scope::default()
        });
        let result = inside(self);
        self.scopes.pop();
        result
    }
}

/// The arguments of a call, one for each parameter.
fn arguments(id: &DefinitionId, function: &FunctionText, call: &Function) -> Result<Vec<Expr>, Problem> {
    let signature = || {
        let parameters = function.parameters.iter();
        let parameters: Vec<String> = parameters
            .map(|known| format!("{} {}", known.name, known.data_type))
            .collect();
        format!("it is {}({})", id.name, parameters.join(", "))
    };
    let plain =
        call.filter.is_none() && call.over.is_none() && call.null_treatment.is_none() && call.within_group.is_empty();
    let list = match &call.args {
        FunctionArguments::List(list) if plain && list.duplicate_treatment.is_none() && list.clauses.is_empty() => list,
        _ => return Err(not_offered(format!("{id} with more than arguments")).hint(signature())),
    };
    let argument = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr.clone()),
        other => Err(not_offered(format!("the argument {other} of {id}")).hint(signature())),
    };
    let arguments = list.args.iter().map(argument).collect::<Result<Vec<_>, _>>()?;
    match arguments.len() == function.parameters.len() {
        true => Ok(arguments),
        false => {
            let (taken, given) = (function.parameters.len(), arguments.len());
            Err(bad(format!("{id} takes {taken} arguments, not {given}")).hint(signature()))
        }
    }
}

/// How often an expression names a parameter.
fn uses_of(name: &str, body: &Expr) -> usize {
    let mut uses = 0;
    front::walk(Root::Expr(body), &mut |node| {
        let is_parameter = |ident: &ast::Ident| ident.value.eq_ignore_ascii_case(name);
        uses += usize::from(match node {
            Node::Expr(Expr::Identifier(ident)) => is_parameter(ident),
            // The name of the function may come first.
            Node::Expr(Expr::CompoundIdentifier(idents)) => idents.iter().any(is_parameter),
            _ => false,
        });
        ControlFlow::Continue(())
    });
    uses
}
