//! Drawing of the view on a screen of any size. Rows that do not fit are left out by priority.

mod footer;
mod help;
mod painter;
mod processes;
mod resources;
mod ribbon;
mod tables;
mod title;

pub(crate) use painter::MIN_SIZE;
pub(crate) use processes::{command, describe_empty, to_f64};
pub(crate) use resources::{cores, cpu_modes, format_metric, instances, largest, value};
pub(crate) use title::describe_state;

use crate::theme::Theme;
use crate::view::View;
use painter::{MIN_TABLES_WIDTH, Painter};
use ratatui::buffer::Buffer;
use ratatui::layout::Position;

/// Rows above the process table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Cpu,
    Cores,
    Memory,
    Swap,
    Load,
    Tasks,
    Disk,
    Network,
    Errors,
    /// Tables of disks, file systems and interfaces.
    Tables,
    /// CPU usage over the range of the ribbon, with the time axis.
    Ribbon,
    /// Memory usage over the range of the ribbon.
    MemoryRibbon,
}

/// Sections in the order of the screen, each with its priority: 0 is left out last.
const SECTIONS: [(Section, u8); 12] = [
    (Section::Cpu, 0),
    (Section::Cores, 6),
    (Section::Memory, 1),
    (Section::Swap, 7),
    (Section::Load, 2),
    (Section::Tasks, 9),
    (Section::Disk, 3),
    (Section::Network, 4),
    (Section::Errors, 8),
    (Section::Tables, 11),
    (Section::MemoryRibbon, 10),
    (Section::Ribbon, 5),
];

/// Draws the view. Returns the position of the cursor if a prompt is open.
pub(crate) fn draw(view: &View, theme: Theme, buffer: &mut Buffer) -> Option<Position> {
    buffer.reset();
    let area = buffer.area;
    if area.is_empty() {
        return None;
    }
    let mut painter = Painter::new(buffer, theme);
    title::draw(view, &mut painter, area.y);
    let (first, last) = (area.y + 1, area.bottom() - 1);
    if view.is_help_open {
        help::draw(&mut painter, first, last);
    } else if view.frame.is_some() {
        let table_row = draw_sections(view, &mut painter, first, last);
        processes::draw(view, &mut painter, table_row, last);
    } else {
        painter.text(area.x, first, "Waiting for the first snapshot", theme.dim());
    }
    let cursor = if area.height > 1 { footer::draw(view, &mut painter, last) } else { None };
    theme.reduce_characters(buffer);
    cursor
}

/// Draws the sections that fit into the upper half. Returns the row after them.
fn draw_sections(view: &View, painter: &mut Painter<'_>, first: u16, last: u16) -> u16 {
    let rows = last.saturating_sub(first);
    let mut budget = rows - rows / 2;
    let mut by_priority = SECTIONS;
    by_priority.sort_by_key(|(_, priority)| *priority);
    let mut chosen = Vec::new();
    for (section, _) in by_priority {
        let height = section_height(section, view, painter);
        if height > 0 && height <= budget {
            chosen.push(section);
            budget -= height;
        }
    }
    let mut row = first;
    for (section, _) in SECTIONS.iter().filter(|(section, _)| chosen.contains(section)) {
        draw_section(*section, view, painter, row);
        row += section_height(*section, view, painter);
    }
    row
}

/// Number of rows of a section; zero if the snapshot has no data for it.
fn section_height(section: Section, view: &View, painter: &Painter<'_>) -> u16 {
    let area = painter.area();
    match section {
        Section::Cores => resources::core_rows(view, painter),
        Section::Swap => u16::from(resources::value(view, "swap.total").is_some()),
        Section::Errors => {
            u16::from(view.frame.as_ref().is_some_and(|frame| !frame.snapshot.errors.is_empty()))
        }
        Section::Tables if area.width >= MIN_TABLES_WIDTH => tables::height(view),
        Section::Tables => 0,
        Section::Ribbon => 2,
        _ => 1,
    }
}

fn draw_section(section: Section, view: &View, painter: &mut Painter<'_>, row: u16) {
    match section {
        Section::Cpu => resources::draw_cpu(view, painter, row),
        Section::Cores => resources::draw_cores(view, painter, row),
        Section::Memory => resources::draw_memory(view, painter, row),
        Section::Swap => resources::draw_swap(view, painter, row),
        Section::Load => resources::draw_load(view, painter, row),
        Section::Tasks => resources::draw_tasks(view, painter, row),
        Section::Disk => resources::draw_disk(view, painter, row),
        Section::Network => resources::draw_network(view, painter, row),
        Section::Errors => resources::draw_errors(view, painter, row),
        Section::Tables => tables::draw(view, painter, row),
        Section::MemoryRibbon => ribbon::draw_lane(view, painter, row, "Memory", &view.ribbon.memory),
        Section::Ribbon => {
            ribbon::draw_lane(view, painter, row, "CPU", &view.ribbon.cpu);
            ribbon::draw_axis(view, painter, row + 1);
        }
    }
}
