//! One source file as text, as tokens and as a syntax tree.
//!
//! **Guarantee.** Tokens are those of the whole file, macro bodies included, so what a rule looks for cannot hide in a macro.
//! Comments are not tokens: they are read from the lines.

use anyhow::{Context, Result};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A token of the flattened stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// `(`, `[`, `{` or an invisible one.
    Open(Delimiter),
    /// Its counterpart.
    Close(Delimiter),
    /// A name or a keyword.
    Word(String),
    /// One character of an operator.
    Punct(char),
    /// A literal as it is written.
    Literal(String),
}

impl Token {
    /// Whether this is the word `word`.
    pub fn is(&self, word: &str) -> bool {
        matches!(self, Token::Word(w) if w == word)
    }
}

/// What gives an ordering, a fence or a seeded bug its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Naming {
    /// `order!("name", ..)`
    Order,
    /// `fence!("name")`
    Fence,
    /// `seeded!("name")`
    Bug,
}

/// A name given in a source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// By which macro.
    pub naming: Naming,
    /// The name.
    pub name: String,
    /// Where.
    pub line: usize,
}

impl Name {
    /// The value of `SPILE_MUTATE` that switches it.
    pub fn key(&self) -> String {
        let kind = match self.naming {
            Naming::Order => "order",
            Naming::Fence => "fence",
            Naming::Bug => "bug",
        };
        format!("{kind}:{}", self.name)
    }
}

/// A parsed file.
pub struct Source {
    /// Its path from the root of the workspace, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
    /// Each token with its line, counted from 1.
    pub tokens: Vec<(Token, usize)>,
    /// The syntax tree.
    pub tree: syn::File,
}

impl Source {
    /// Parses `text`.
    pub fn parse(path: &str, text: String) -> Result<Self> {
        let stream: TokenStream = text.parse().map_err(|e| anyhow::anyhow!("{path}: {e}"))?;
        let tree = syn::parse2(stream.clone()).with_context(|| path.to_string())?;
        let mut tokens = Vec::new();
        flatten(stream, &mut tokens);
        Ok(Self { path: path.to_string(), text, tokens, tree })
    }

    /// Line `number`, counted from 1, without the blanks around it.
    pub fn line(&self, number: usize) -> &str {
        self.text.lines().nth(number - 1).map_or("", str::trim)
    }

    /// The comments of lines `from..=to`, doc comments included, as one text.
    pub fn comments(&self, from: usize, to: usize) -> String {
        let lines = self.text.lines().skip(from.max(1) - 1).take((to + 1).saturating_sub(from.max(1)));
        lines.filter_map(|line| line.split_once("//")).map(|(_, comment)| comment).collect::<Vec<_>>().join("\n")
    }

    /// The names that the file gives.
    pub fn names(&self) -> Vec<Name> {
        let naming = |word: &str| match word {
            "order" => Some(Naming::Order),
            "fence" => Some(Naming::Fence),
            "seeded" => Some(Naming::Bug),
            _ => None,
        };
        let name = |window: &[(Token, usize)]| match window {
            [(Token::Word(word), line), (Token::Punct('!'), _), (Token::Open(_), _), (Token::Literal(name), _)] => {
                let name = name.strip_prefix('"')?.strip_suffix('"')?.to_string();
                Some(Name { naming: naming(word)?, name, line: *line })
            }
            _ => None,
        };
        self.tokens.windows(4).filter_map(name).collect()
    }

    /// Where `unsafe` opens a block or an implementation: the index of the token.
    pub fn unsafe_sites(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.tokens.len()).filter(|&i| {
            let next = self.tokens.get(i + 1).map(|(token, _)| token);
            self.tokens[i].0.is("unsafe") && next.is_some_and(|next| next.is("impl") || *next == Token::Open(Delimiter::Brace))
        })
    }

    /// The line on which the statement (or item, or match arm) of token `at` begins.
    pub fn statement_line(&self, at: usize) -> usize {
        let mut depth = 0usize;
        let mut first = at;
        for i in (0..at).rev() {
            match &self.tokens[i].0 {
                Token::Open(Delimiter::Brace) if depth == 0 => break,
                Token::Punct(';' | ',') if depth == 0 && self.in_braces(i) => break,
                Token::Close(Delimiter::Brace) if depth == 0 && !continues(&self.tokens[i + 1].0) => break,
                Token::Open(_) => depth = depth.saturating_sub(1),
                Token::Close(_) => depth += 1,
                _ => {}
            }
            if depth == 0 {
                first = i;
            }
        }
        self.tokens[first].1
    }

    /// Whether the innermost group around token `at` is one of braces (or the file).
    fn in_braces(&self, at: usize) -> bool {
        let mut depth = 0usize;
        for (token, _) in self.tokens[..at].iter().rev() {
            match token {
                Token::Close(_) => depth += 1,
                Token::Open(delimiter) if depth == 0 => return *delimiter == Delimiter::Brace,
                Token::Open(_) => depth -= 1,
                _ => {}
            }
        }
        true
    }
}

/// Whether a token after `}` goes on with the same statement.
fn continues(next: &Token) -> bool {
    next.is("else") || next.is("as") || matches!(next, Token::Punct('.' | '?' | '=' | '|' | '&' | '+' | '-' | '<' | '>'))
}

fn flatten(stream: TokenStream, tokens: &mut Vec<(Token, usize)>) {
    for tree in stream {
        let line = tree.span().start().line;
        match tree {
            TokenTree::Group(group) => {
                tokens.push((Token::Open(group.delimiter()), line));
                flatten(group.stream(), tokens);
                tokens.push((Token::Close(group.delimiter()), group.span_close().start().line));
            }
            TokenTree::Ident(word) => tokens.push((Token::Word(word.to_string()), line)),
            TokenTree::Punct(punct) => tokens.push((Token::Punct(punct.as_char()), line)),
            TokenTree::Literal(literal) => tokens.push((Token::Literal(literal.to_string()), line)),
        }
    }
}

/// Whether a function is declared unsafe.
pub fn is_unsafe(signature: &syn::Signature) -> bool {
    matches!(signature.safety, syn::Safety::Unsafe(_))
}
