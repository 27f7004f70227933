// Runs every kernel of the tensor product on arrays of exactly the needed size, by several numbers of threads, for a
// sanitizer to watch. Exits with 1 if threads change a bit or a result is not a number. Argument: a file of tables.
#include "sdas/tensor_product.h"

#include "driver.h"
#include "driver_tables.h"

namespace {

// What is not wanted has no array.
struct Wanted {
    bool x, y, weight, grad;
};

constexpr Wanted everything{true, true, true, true};

template <class T>
struct Arrays {
    using Job = sdas::TensorProduct<T>;
    driver::Operands<T> operands;
    std::vector<std::int64_t> lane_view, out_view, uniform, gap, path, coupling;
    std::vector<std::int32_t> index;
    std::vector<T> values;
    Job job{};

    Arrays(const driver::Table& table, std::int64_t batch, bool shared)
        : index(table.array<std::int32_t>("index")), values(table.array<T>("values")) {
        job.batch = batch, job.shared = shared;
        for (const auto& [name, size] : {
                 std::pair{"dim1", &job.dim1}, {"dim2", &job.dim2}, {"dim_out", &job.dim_out},
                 {"weight_numel", &job.weight_numel}, {"lane_views", &job.lane_views}, {"lane_rows", &job.lane_rows},
                 {"out_views", &job.out_views}, {"out_rows", &job.out_rows}, {"uniforms", &job.uniforms},
                 {"uniform_rows", &job.uniform_rows}, {"paths", &job.paths}, {"matrices", &job.matrices},
                 {"gaps", &job.gaps}, {"max_mul", &job.max_mul}, {"work", &job.work}}) {
            *size = table.size(name);
        }
        const auto rows = [&](const char* name, std::vector<std::int64_t>& array, auto*& member) {
            array = table.array<std::int64_t>(name);
            member = reinterpret_cast<std::remove_reference_t<decltype(member)>>(array.data());
        };
        rows("lane_view", lane_view, job.lane_view);
        rows("out_view", out_view, job.out_view);
        rows("uniform", uniform, job.uniform);
        rows("gap", gap, job.gap);
        rows("path", path, job.path);
        rows("coupling", coupling, job.coupling);
        job.index = index.data(), job.values = values.data();
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
    const std::vector<driver::Table> tables = driver::read_tables(arguments[1]);
    for (const driver::Table& table : tables) result &= all_sizes<float>(table) & all_sizes<double>(table);
    // Results that are stored past the caches.
    result &= good<float>(tables.at(0), (1 << 20) / tables.at(0).size("dim_out") + 1, false);
    result &= driver::concurrently([&] { return good<float>(tables.at(0), 1000, true); });
    return driver::finish(result);
}
