// The searches that the kernels are tried with.
#pragma once

#include "check.h"

namespace llmrec::driver {

void check_races(Checker& checker);        // few and small: a GPU's, where threads are dear
void check_shapes(Checker& checker);       // every number of items, dimensions and queries
void check_kinds(Checker& checker);        // every kind of row, under every tuning
void check_numbers(Checker& checker);      // every kind of bias with every kind of scale
void check_extremes(Checker& checker);     // lengths and scales whose products leave float32
void check_filters(Checker& checker);      // every filter
void check_draws(Checker& checker);        // everything with everything, by chance
void check_widest(Checker& checker);       // so many dimensions that codes must be small
void check_bad_input(Checker& checker);    // NaN and infinity are refused, by row
void check_concurrency(Checker& checker);  // searches that run at the same time
void check_appends(Checker& checker);      // rows that are appended while others are searched

}  // namespace llmrec::driver
