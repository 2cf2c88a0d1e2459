// Which level of a kernel runs: the best row of its table that the machine and LLMREC_ISA allow.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "common/isa.h"

namespace llmrec {

// What build_info() tells of each table. Tables enter themselves, so that no list is edited.
struct TableEntry {
  std::string op;
  std::vector<Level> levels;

  Level chosen() const {
    const Level allowed = allowed_level();
    for (Level level : levels)
      if (within(level, allowed)) return level;
    return Level::scalar;
  }
};

inline std::vector<TableEntry>& tables() {
  static std::vector<TableEntry> entries;
  return entries;
}

template <class Fn>
class Table {
 public:
  struct Row {
    Level level;
    Fn* kernel;
  };

  // Rows come best level first and end with scalar, which every machine can run.
  Table(const char* op, std::initializer_list<Row> rows) : rows_(rows) {
    TableEntry entry{op, {}};
    for (const Row& row : rows_) entry.levels.push_back(row.level);
    tables().push_back(entry);
  }

  Fn* pick() const {
    const Level allowed = allowed_level();
    for (const Row& row : rows_)
      if (within(row.level, allowed)) return row.kernel;
    return rows_.back().kernel;
  }

 private:
  std::vector<Row> rows_;
};

}  // namespace llmrec
