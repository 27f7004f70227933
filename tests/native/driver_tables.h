// Tables of specifications as the Python package makes them, from the file that test_sanitizers.py writes: lines of a
// name, a count and so many numbers, and a line "end" after each table.
#pragma once

#include <cstdint>
#include <fstream>
#include <map>
#include <string>
#include <vector>

namespace driver {

class Table {
  public:
    explicit Table(std::istream& file) {
        for (std::string name; file >> name && name != "end";) {
            std::size_t count = 0;
            file >> count;
            std::vector<double>& values = numbers_[name];
            values.resize(count);
            for (double& x : values) file >> x;
        }
    }

    bool empty() const { return numbers_.empty(); }
    std::int64_t size(const char* name) const { return static_cast<std::int64_t>(numbers_.at(name).at(0)); }

    template <class To>
    std::vector<To> array(const char* name) const {
        const std::vector<double>& values = numbers_.at(name);
        return {values.begin(), values.end()};
    }

  private:
    std::map<std::string, std::vector<double>> numbers_;
};

inline std::vector<Table> read_tables(const char* path) {
    std::ifstream file(path);
    std::vector<Table> tables;
    for (Table next(file); !next.empty(); next = Table(file)) tables.push_back(next);
    return tables;
}

}  // namespace driver
