//! Charts: SVG as wide as the page is, in the page's colours.
//!
//! **Guarantee.** Every chart says in its title what to see and below it how it was measured, has a legend where colours mean something, units at its axes,
//! the value of each mark as a hint, and, the maps aside, its figures as a table too.
//!
//! **Mechanism.** Distances across are per cent of the area between the margins, those down are pixels: text has the same size on every screen,
//! and nothing has to be measured by a script.

pub mod bands;
pub mod bars;
pub mod scale;
pub mod spaces;

use crate::output::Table;
use maud::{Markup, Render, html};

/// A chart.
#[derive(Debug)]
pub struct Chart {
    /// What to see.
    pub title: String,
    /// How it was measured.
    pub caption: String,
    /// What is drawn.
    pub plot: Plot,
}

/// What is drawn.
#[derive(Debug)]
pub enum Plot {
    /// Bars side by side or end to end.
    Bars(bars::Bars),
    /// What was mapped over time.
    Spaces(spaces::Spaces),
    /// Ranges over a number.
    Bands(bands::Bands),
}

/// An axis: what is counted along it, with its unit.
#[derive(Clone, Debug)]
pub struct Axis(pub String);

impl Render for Chart {
    fn render(&self) -> Markup {
        let (legend, drawing, figures) = match &self.plot {
            Plot::Bars(bars) => (bars.legend(), bars.draw(&self.title), Some(bars.figures())),
            Plot::Spaces(spaces) => (spaces.legend(), spaces.draw(&self.title), None),
            Plot::Bands(bands) => (bands.legend(), bands.draw(&self.title), Some(bands.figures())),
        };
        figure(self, &legend, &drawing, figures.as_ref())
    }
}

fn figure(chart: &Chart, legend: &[Entry], drawing: &Markup, figures: Option<&Table>) -> Markup {
    html! {
        figure.chart {
            h3 { (chart.title) }
            @if !legend.is_empty() {
                ul.legend { @for entry in legend { li class={ (entry.class) @if entry.is_line { " line" } } { (entry.name) } } }
            }
            (drawing)
            figcaption { (chart.caption) }
            @if let Some(figures) = figures { details { summary { "Figures" } (figures) } }
        }
    }
}

/// A colour, and what it stands for.
struct Entry {
    class: String,
    name: String,
    is_line: bool,
}

/// What is around the area in which is drawn, in pixels.
struct Margins {
    left: usize,
    right: usize,
    top: usize,
    bottom: usize,
}

/// An SVG with an area `height` high. `inside` is in pixels from the area's upper left corner, and in per cent of its width; what stands at its left has negative places.
fn frame(title: &str, class: &str, margins: &Margins, height: f64, inside: &Markup) -> Markup {
    let Margins { left, right, top, bottom } = margins;
    html! {
        div style={ "padding:0 " (right) "px 0 " (left) "px" } {
            svg class={ "plot " (class) } role="img" aria-label=(title) width="100%" height=(pixels(height + (top + bottom) as f64)) {
                g transform={ "translate(0 " (top) ")" } { (inside) }
            }
        }
    }
}

/// Tenths are enough.
fn pixels(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_string)
}

/// Of the area's width. A hundredth is less than a pixel.
fn across(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}
