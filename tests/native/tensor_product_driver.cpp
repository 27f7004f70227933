// Runs every kernel of the tensor product on arrays of exactly the needed size, by several numbers of threads, for a
// sanitizer to watch. Exits with 1 if threads change a bit or a result is not a number. Argument: a file of tables, the
// last three those of dense paths.
#include "ops/tensor_product/dense.h"
#include "ops/tensor_product/tensor_product.h"

#include "driver.h"
#include "driver_tables.h"

namespace {

// What is not wanted has no array.
struct Wanted {
    bool x, y, weight, grad;
};

constexpr Wanted everything{true, true, true, true};

// Tables of one tensor product, as a job takes them.
template <class T>
struct JobTables {
    sdas::TensorProduct<T> job{};

    explicit JobTables(const driver::Table& table)
        : index_(table.array<std::int32_t>("index")), values_(table.array<T>("values")) {
        for (const auto& [name, size] : {std::pair{"dim1", &job.dim1},
                                         {"dim2", &job.dim2},
                                         {"dim_out", &job.dim_out},
                                         {"weight_numel", &job.weight_numel},
                                         {"lane_views", &job.lane_views},
                                         {"lane_rows", &job.lane_rows},
                                         {"out_views", &job.out_views},
                                         {"uniforms", &job.uniforms},
                                         {"uniform_rows", &job.uniform_rows},
                                         {"paths", &job.paths},
                                         {"matrices", &job.matrices},
                                         {"gaps", &job.gaps},
                                         {"max_mul", &job.max_mul},
                                         {"work", &job.work}}) {
            *size = table.size(name);
        }
        const auto rows = [&](const char* name, std::vector<std::int64_t>& array, auto*& member) {
            array = table.array<std::int64_t>(name);
            member = reinterpret_cast<std::remove_reference_t<decltype(member)>>(array.data());
        };
        rows("lane_view", lane_view_, job.lane_view);
        rows("out_view", out_view_, job.out_view);
        rows("row_view", row_view_, job.row_view);
        rows("uniform", uniform_, job.uniform);
        rows("gap", gap_, job.gap);
        rows("path", path_, job.path);
        rows("path_start", path_start_, job.path_start);
        rows("coupling", coupling_, job.coupling);
        job.index = index_.data(), job.values = values_.data();
    }

  private:
    std::vector<std::int64_t> lane_view_, out_view_, row_view_, uniform_, gap_, path_, path_start_, coupling_;
    std::vector<std::int32_t> index_;
    std::vector<T> values_;
};

template <class T>
struct Arrays {
    using Job = sdas::TensorProduct<T>;
    driver::Operands<T> operands;
    JobTables<T> tables;
    Job job;

    Arrays(const driver::Table& table, std::int64_t batch, bool shared) : tables(table), job(tables.job) {
        job.batch = batch, job.shared = shared;
        job.x = operands.operand(batch * job.dim1), job.x_step = operands.operand(batch * job.dim1);
        job.y = operands.operand(batch * job.dim2), job.y_step = operands.operand(batch * job.dim2);
        job.weight = operands.operand(weights()), job.weight_step = operands.operand(weights());
        job.grad = operands.operand(batch * job.dim_out);
    }

    std::int64_t weights() const { return (job.shared ? 1 : job.batch) * job.weight_numel; }

    // All results of the three rungs.
    std::vector<T> run(Wanted wanted, int threads) const {
        driver::Results<T> results;
        const auto gradients = [&](Job& one) {
            one.block = job.shared && wanted.weight ? 32 : 1;
            if (wanted.x) one.by_x = results.result(job.batch * job.dim1);
            if (wanted.y) one.by_y = results.result(job.batch * job.dim2);
            if (!wanted.weight || !job.weight_numel) return;
            one.by_weight = results.result(weights());
            if (job.shared) one.partial = results.scratch((job.batch + one.block - 1) / one.block * job.weight_numel);
        };
        Job first = job, second = job, third = job;
        first.block = 1;
        first.out = results.result(job.batch * job.dim_out);
        sdas::tensor_product_forward(first, threads);
        gradients(second);
        sdas::tensor_product_backward(second, threads);
        gradients(third);
        if (wanted.grad) third.out = results.result(job.batch * job.dim_out);
        sdas::tensor_product_double_backward(third, threads);
        return results.all();
    }
};

// P, Q and the matrices between them, from three tables in turn.
template <class T>
struct DenseArrays {
    using Job = sdas::TensorProductDense<T>;
    driver::Operands<T> operands;
    JobTables<T> inner, outer;
    std::vector<std::int64_t> matrix, part;
    std::int64_t weight_numel;
    Job job{};

    DenseArrays(const driver::Table* table, std::int64_t batch)
        : inner(table[0]),
          outer(table[1]),
          matrix(table[2].array<std::int64_t>("matrix")),
          part(table[2].array<std::int64_t>("part")),
          weight_numel(table[2].size("weight_numel")) {
        job.inner = inner.job, job.outer = outer.job;
        job.inner.batch = job.outer.batch = batch;
        const std::int64_t dim1 = job.inner.dim1, dim2 = job.inner.dim2;
        job.inner.x = operands.operand(batch * dim1), job.inner.x_step = operands.operand(batch * dim1);
        job.inner.y = job.outer.y = operands.operand(batch * dim2);
        job.inner.y_step = job.outer.y_step = operands.operand(batch * dim2);
        job.outer.grad = operands.operand(batch * job.outer.dim_out);
        job.weight = operands.operand(weight_numel), job.weight_step = operands.operand(weight_numel);
        job.matrix = reinterpret_cast<const sdas::TensorProductMatrix*>(matrix.data());
        job.part = reinterpret_cast<const sdas::TensorProductPart*>(part.data());
        job.matrices = table[2].size("matrices"), job.parts = table[2].size("parts");
        job.by_matrices = table[2].size("by_matrices"), job.numbers = table[2].size("numbers");
        job.block = 6, job.span = 12;
    }

    // All results of the three rungs.
    std::vector<T> run(Wanted wanted, int threads) const {
        driver::Results<T> results;
        const std::int64_t batch = job.inner.batch;
        const auto gradients = [&](Job& one) {
            if (wanted.x) one.by_x = results.result(batch * job.inner.dim1);
            if (wanted.y) one.by_y = results.result(batch * job.inner.dim2);
            if (!wanted.weight) return;
            one.by_weight = results.result(weight_numel);
            one.partial = results.scratch((batch + job.span - 1) / job.span * job.by_matrices);
        };
        Job first = job, second = job, third = job;
        first.out = results.result(batch * job.outer.dim_out);
        sdas::tensor_product_dense_forward(first, threads);
        gradients(second);
        sdas::tensor_product_dense_backward(second, threads);
        gradients(third);
        if (wanted.grad) third.out = results.result(batch * job.outer.dim_out);
        sdas::tensor_product_dense_double_backward(third, threads);
        return results.all();
    }
};

template <class T>
bool dense_is_good(const driver::Table* tables, std::int64_t batch, Wanted wanted = everything) {
    const DenseArrays<T> arrays(tables, batch);
    return driver::good([&](int threads) { return arrays.run(wanted, threads); });
}

template <class T>
bool all_dense_sizes(const driver::Table* tables) {
    bool result = true;
    for (std::int64_t batch : {0, 1, 37, 1000}) result &= dense_is_good<T>(tables, batch);
    for (Wanted one : {Wanted{true}, {false, true}, {false, false, true}, {false, false, false, true}}) {
        result &= dense_is_good<T>(tables, 5, one);
    }
    return result;
}

template <class T>
bool good(const driver::Table& table, std::int64_t batch, bool shared, Wanted wanted = everything) {
    const Arrays<T> arrays(table, batch, shared);
    return driver::good([&](int threads) { return arrays.run(wanted, threads); });
}

template <class T>
bool all_sizes(const driver::Table& table) {
    bool result = true;
    for (bool shared : {false, true}) {
        for (std::int64_t batch : {0, 1, 37}) result &= good<T>(table, batch, shared);
        for (Wanted one : {Wanted{true}, {false, true}, {false, false, true}, {false, false, false, true}}) {
            result &= good<T>(table, 5, shared, one);
        }
    }
    const std::int64_t worth_two_threads = 2 * (1 << 19) / table.size("work") + 1;
    return result & good<T>(table, worth_two_threads, true);
}

}  // namespace

int main(int, char** arguments) {
    bool result = true;
    std::vector<driver::Table> tables = driver::read_tables(arguments[1]);
    const std::vector<driver::Table> dense(tables.end() - 3, tables.end());
    tables.erase(tables.end() - 3, tables.end());
    result &= all_dense_sizes<float>(dense.data()) & all_dense_sizes<double>(dense.data());
    for (const driver::Table& table : tables) result &= all_sizes<float>(table) & all_sizes<double>(table);
    // Results that are stored past the caches.
    result &= good<float>(tables.at(0), (1 << 20) / tables.at(0).size("dim_out") + 1, false);
    result &= driver::concurrently([&] { return good<float>(tables.at(0), 1000, true); });
    return driver::finish(result);
}
