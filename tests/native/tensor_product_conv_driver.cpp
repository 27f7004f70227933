// Runs every kernel of the tensor product over neighbors on arrays of exactly the needed size, by several numbers of
// threads, for a sanitizer to watch. Exits with 1 if threads change a bit or a result is not a number. Argument: a file
// of tables, two for each specification: to the receivers and to the senders.
#include "ops/tensor_product_conv/tensor_product_conv.h"

#include "driver.h"
#include "driver_tables.h"

namespace {

// One direction: its tables, and a job that has nothing else.
template <class T>
struct Direction {
    using Job = sdas::TensorProductConv<T>;
    std::vector<std::int64_t> in_entry, out_entry, path;
    std::vector<std::int32_t> term_start, term_j;
    std::vector<T> term_value;
    Job job{};

    explicit Direction(const driver::Table& table)
        : term_start(table.array<std::int32_t>("term_start")),
          term_j(table.array<std::int32_t>("term_j")),
          term_value(table.array<T>("term_value")) {
        for (const auto& [name, size] : {std::pair{"dim2", &job.dim2},
                                         {"weight_numel", &job.weight_numel},
                                         {"work", &job.work},
                                         {"in_dim", &job.in_dim},
                                         {"in_entries", &job.in_entries},
                                         {"in_width", &job.in_width},
                                         {"out_dim", &job.out_dim},
                                         {"out_entries", &job.out_entries},
                                         {"out_width", &job.out_width},
                                         {"paths", &job.paths},
                                         {"pairs", &job.pairs}}) {
            *size = table.size(name);
        }
        const auto rows = [&](const char* name, std::vector<std::int64_t>& array, auto*& member) {
            array = table.array<std::int64_t>(name);
            member = reinterpret_cast<std::remove_reference_t<decltype(member)>>(array.data());
        };
        rows("in_entry", in_entry, job.in_entry);
        rows("out_entry", out_entry, job.out_entry);
        rows("path", path, job.path);
        job.term_start = term_start.data(), job.term_j = term_j.data(), job.term_value = term_value.data();
    }
};

// Which operands have a step in the double backward, and which gradients `edge` gives.
struct Choice {
    bool x_step, y_step, weight_step, y, weight;
};

constexpr Choice everything{true, true, true, true, true};

template <class T>
struct Arrays {
    using Job = sdas::TensorProductConv<T>;
    driver::Operands<T> operands;
    driver::Graph graph;
    Direction<T> to_receivers, to_senders;
    bool shared;
    const T *x, *x_step, *y, *y_step, *weight, *weight_step, *grad;

    Arrays(const driver::Table* tables, std::int64_t nodes, std::int64_t edges, bool shared)
        : graph(nodes, edges, operands), to_receivers(tables[0]), to_senders(tables[1]), shared(shared) {
        const Job& job = to_receivers.job;
        x = operands.operand(nodes * job.in_dim), x_step = operands.operand(nodes * job.in_dim);
        y = operands.operand(edges * job.dim2), y_step = operands.operand(edges * job.dim2);
        weight = operands.operand(weights()), weight_step = operands.operand(weights());
        grad = operands.operand(nodes * job.out_dim);
    }

    std::int64_t weights() const { return (shared ? 1 : graph.edges) * to_receivers.job.weight_numel; }

    // All results of the three rungs.
    std::vector<T> run(Choice choice, int threads) const {
        driver::Results<T> results;
        const T* packed_x = pack(to_receivers, x, results, threads);
        const T* packed_step = choice.x_step ? pack(to_receivers, x_step, results, threads) : nullptr;
        const T* packed_grad = pack(to_senders, grad, results, threads);

        reduce(of_receivers(false, choice), packed_x, nullptr, results, threads);
        reduce(of_senders(false, choice), packed_grad, nullptr, results, threads);
        edge(of_receivers(false, choice), packed_x, nullptr, packed_grad, choice, results, threads);

        reduce(of_receivers(true, choice), packed_x, packed_step, results, threads);
        reduce(of_senders(true, choice), packed_grad, nullptr, results, threads);
        edge(of_receivers(true, choice), packed_x, packed_step, packed_grad, choice, results, threads);
        return results.all();
    }

  private:
    // A job on the edges of each receiver, or of each sender.
    Job of_receivers(bool second_order, Choice choice) const {
        Job job = with_operands(to_receivers.job, second_order, choice);
        job.pointers = graph.row_ptr.data(), job.neighbors = graph.senders.data();
        return job;
    }

    Job of_senders(bool second_order, Choice choice) const {
        Job job = with_operands(to_senders.job, second_order, choice);
        job.pointers = graph.sender_ptr.data(), job.neighbors = graph.receivers.data();
        job.order = graph.sender_order.data();
        return job;
    }

    Job with_operands(Job job, bool second_order, Choice choice) const {
        job.nodes = graph.nodes, job.edges = graph.edges, job.block = 1;
        job.shared = shared, job.second_order = second_order;
        job.y = y, job.weight = weight;
        if (second_order && choice.y_step) job.y_step = y_step;
        if (second_order && choice.weight_step) job.weight_step = weight_step;
        return job;
    }

    const T* pack(const Direction<T>& direction, const T* features, driver::Results<T>& results, int threads) const {
        Job job = direction.job;
        job.nodes = graph.nodes, job.block = 1;
        job.in = features, job.out = results.scratch(job.nodes * job.in_width);
        sdas::tensor_product_conv_pack(job, threads);
        return job.out;
    }

    static void reduce(Job job, const T* in, const T* in_step, driver::Results<T>& results, int threads) {
        job.in = in, job.in_step = in_step, job.out = results.result(job.nodes * job.out_dim);
        sdas::tensor_product_conv_reduce(job, threads);
    }

    void edge(Job job, const T* in, const T* in_step, const T* grad, Choice choice, driver::Results<T>& results,
              int threads) const {
        job.in = in, job.in_step = in_step, job.grad = grad;
        if (choice.y) job.by_y = results.result(job.edges * job.dim2);
        if (choice.weight && job.weight_numel) {
            job.by_weight = results.result(weights());
            if (shared) {
                job.block = std::max<std::int64_t>(1, (job.nodes + 63) / 64);
                job.partial = results.scratch((job.nodes + job.block - 1) / job.block * job.weight_numel);
            }
        }
        sdas::tensor_product_conv_edge(job, threads);
    }
};

template <class T>
bool good(const driver::Table* tables, std::int64_t nodes, std::int64_t edges, bool shared,
          Choice choice = everything) {
    const Arrays<T> arrays(tables, nodes, edges, shared);
    return driver::good([&](int threads) { return arrays.run(choice, threads); });
}

template <class T>
bool all_sizes(const driver::Table* tables) {
    bool result = true;
    for (bool shared : {false, true}) {
        result &= good<T>(tables, 0, 0, shared) & good<T>(tables, 1, 0, shared) & good<T>(tables, 5, 23, shared);
        result &= good<T>(tables, 200, 300, shared);
        for (int left_out = 0; left_out < 5; ++left_out) {
            bool has[5] = {true, true, true, true, true};
            has[left_out] = false;
            result &= good<T>(tables, 4, 19, shared, {has[0], has[1], has[2], has[3], has[4]});
        }
    }
    // More than a thousand edges at one node, and work for several threads.
    return result & good<T>(tables, 40, 2600, true) & good<T>(tables, 300, 2100, false);
}

}  // namespace

int main(int, char** arguments) {
    bool result = true;
    const std::vector<driver::Table> tables = driver::read_tables(arguments[1]);
    for (std::size_t n = 0; n < tables.size(); n += 2) {
        result &= all_sizes<float>(&tables[n]) & all_sizes<double>(&tables[n]);
    }
    // Nodes that are worth several threads by themselves, as what packs them sees no edges.
    result &= good<float>(&tables.at(0), 9000, 100, false);
    result &= driver::concurrently([&] { return good<float>(&tables.at(0), 40, 2600, true); });
    return driver::finish(result);
}
