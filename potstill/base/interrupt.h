// Ctrl-C stops between two units of work, never inside one.
#pragma once

namespace potstill {

// SIGINT and SIGTERM set a flag; a second SIGINT ends the process at once.
void install_interrupt_handler();
bool interrupt_requested();
// Throws Error(kInterrupted) once Ctrl-C was pressed: call it where the work done so far is on disk.
void throw_if_interrupted();

}  // namespace potstill
