package dev.edgecv.core

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonObjectBuilder
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.add
import kotlinx.serialization.json.addJsonArray
import kotlinx.serialization.json.buildJsonArray
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put
import kotlinx.serialization.json.putJsonArray
import kotlinx.serialization.json.putJsonObject
import java.io.File
import java.nio.ByteBuffer
import java.util.Random

/** The parameters of a benchmark. */
data class BenchmarkRequest(val folder: String, val runs: Int, val warmup: Int, val threads: List<Int>, val delegate: Delegate) {
    companion object {
        /** Parses the extras of an intent; a null value takes its default. Throws [InputError]. */
        fun parse(folder: String?, runs: Int?, warmup: Int?, threads: String?, delegate: String?): BenchmarkRequest {
            val counts = (threads ?: "1").split(",").map { it.trim().toIntOrNull() ?: 0 }
            return BenchmarkRequest(
                folder = folder?.takeIf { FOLDER.matches(it) }
                    ?: throw InputError("folder must be 1 to 32 of a-z and 0-9. Received: $folder"),
                runs = (runs ?: 50).checked("runs", 1..100_000),
                warmup = (warmup ?: 10).checked("warmup", 0..100_000),
                threads = counts.takeIf { list -> list.size <= 8 && list.all { it in 1..64 } }
                    ?: throw InputError("threads must be up to 8 counts of 1 to 64, such as 1,4. Received: $threads"),
                delegate = Delegate.entries.firstOrNull { it.name.lowercase() == (delegate ?: "xnnpack") }
                    ?: throw InputError("delegate must be one of ${Delegate.entries.joinToString { it.name.lowercase() }}. Received: $delegate"),
            )
        }

        fun isFolder(name: String) = FOLDER.matches(name)

        private val FOLDER = Regex("[a-z0-9]{1,32}")

        private fun Int.checked(name: String, range: IntRange) =
            takeIf { it in range } ?: throw InputError("$name must be ${range.first} to ${range.last}. Received: $this")
    }
}

/** The device that runs the benchmark; a value is null if the system does not provide it. */
interface Machine {
    /** A readable name: model, system, cores. */
    val host: String

    /** Further properties as text. */
    val description: Map<String, String>

    fun temperatureC(): Double?

    fun clockMhz(): Double?

    fun memory(): Memory?
}

/** Resident memory of this process, current and peak, in bytes. */
data class Memory(val bytes: Long, val peakBytes: Long)

/** Measures the latency and memory of a model and writes `measurement.json`, which `edge-cv report` merges. */
class Benchmark(private val runtime: Runtime, private val machine: Machine) {
    /** Measures `model.tflite` in a folder and writes the result, or the reason of a failure, to that folder. */
    fun measureFolder(folder: File, request: BenchmarkRequest, progress: (String) -> Unit = {}): JsonObject {
        val result = try {
            val model = mapped(File(folder, MODEL), "the model")
            val golden = File(folder, GOLDEN).takeIf { it.isFile }?.let { mapped(it, "the golden inputs") }
            measure(MODEL, model, golden, request, progress)
        } catch (error: InputError) {
            failure(error.reason())
        } catch (error: OutOfMemoryError) {
            failure("the device has too little memory for this model")
        }
        write(folder, result)
        return result
    }

    /**
     * The same as [measureFolder] for the content of the files; writes nothing.
     *
     * @param file the model's file name, for the result.
     * @param goesOn asked before each inference; if it returns false, [Cancelled] is thrown.
     */
    fun measure(
        file: String,
        model: ByteBuffer,
        golden: ByteBuffer?,
        request: BenchmarkRequest,
        progress: (String) -> Unit = {},
        goesOn: () -> Boolean = { true },
    ): JsonObject {
        TfliteFile(model)
        val before = machine.memory()
        var peak: Long? = null
        val temperature = mutableListOf(machine.temperatureC())
        val clock = mutableListOf(machine.clockMhz())
        val latency = mutableListOf<JsonObject>()
        var outputs: JsonObject? = null
        for (threads in request.threads) {
            progress("$threads threads: opening the model")
            runtime.open(model, Settings(threads, request.delegate)).use { engine ->
                val input = engine.input.buffer()
                val output = engine.output.buffer()
                if (golden != null && outputs == null) outputs = goldenOutputs(engine, golden)
                fill(engine.input, input)
                fun runMs(): Double {
                    if (!goesOn()) throw Cancelled()
                    val start = System.nanoTime()
                    engine.run(input, output)
                    return (System.nanoTime() - start) / 1e6
                }
                repeat(request.warmup) { runMs() }
                progress("$threads threads: measuring ${request.runs} inferences")
                val samples = List(request.runs) { runMs() }
                if (latency.isEmpty() && before != null) {
                    peak = machine.memory()?.let { (it.peakBytes - before.bytes).coerceAtLeast(0) }
                }
                latency += latency(engine.runtime, threads, samples)
            }
        }
        temperature += machine.temperatureC()
        clock += machine.clockMhz()
        return buildJsonObject {
            header(file, Record.sha256(model), machine)
            put("latency", JsonArray(latency))
            put("peak_memory_bytes", peak)
            put("temperature_c", pair(temperature))
            put("clock_mhz", pair(clock))
            put("golden", outputs ?: JsonNull)
        }
    }

    private fun latency(runtime: String, threads: Int, samples: List<Double>) = buildJsonObject {
        put("host", machine.host)
        put("runtime", runtime)
        put("threads", threads)
        put("p50_ms", percentile(samples, 0.50))
        put("p90_ms", percentile(samples, 0.90))
        put("p99_ms", percentile(samples, 0.99))
        put("runs", samples.size)
        putJsonArray("samples_ms") { samples.forEach { add(it) } }
    }

    private fun goldenOutputs(engine: Engine, golden: ByteBuffer): JsonObject {
        val size = engine.input.bytes
        if (golden.limit() == 0 || golden.limit() % size != 0) {
            throw InputError("$GOLDEN must hold inputs of $size bytes each. Received: ${golden.limit()} bytes")
        }
        val output = engine.output.buffer()
        val images = golden.limit() / size
        return buildJsonObject {
            put("sha256", Record.sha256(golden))
            put("images", images)
            putJsonArray("outputs") {
                for (image in 0 until images) {
                    val input = engine.input.buffer()
                    input.put(golden.duplicate().apply { position(image * size); limit((image + 1) * size) })
                    engine.run(input, output)
                    addJsonArray { engine.output.stored(output).forEach { add(number(it)) } }
                }
            }
        }
    }

    companion object {
        const val MODEL = "model.tflite"
        const val GOLDEN = "golden.bin"
        const val RESULT = "measurement.json"
        private const val KIND = "measurement"

        /** The fields of every measurement about the model file and the machine. */
        internal fun JsonObjectBuilder.header(file: String, sha256: String, machine: Machine) {
            put("schema", 1)
            put("kind", KIND)
            putJsonObject("artifact") {
                put("file", file)
                put("sha256", sha256)
            }
            putJsonObject("device") {
                put("host", machine.host)
                for ((name, text) in machine.description) put(name, text)
            }
        }

        /** The result of a failed benchmark; [reason] is one line. */
        fun failure(reason: String): JsonObject = buildJsonObject {
            put("schema", 1)
            put("kind", KIND)
            put("error", reason)
        }

        /** Writes a result to a folder. Throws [InputError]. */
        fun write(folder: File, result: JsonObject) =
            writeWhole(File(folder, RESULT), Json.encodeToString(JsonObject.serializer(), result) + "\n")

        private fun fill(tensor: Tensor, buffer: ByteBuffer) {
            val random = Random(0)
            for (i in 0 until tensor.size) {
                val pixel = random.nextInt(256)
                when (tensor.type) {
                    Type.FLOAT32 -> buffer.putFloat(4 * i, pixel.toFloat())
                    Type.INT8, Type.UINT8 -> buffer.put(i, pixel.toByte())
                    Type.INT16 -> buffer.putShort(2 * i, pixel.toShort())
                }
            }
        }

        private fun number(value: Number): JsonElement =
            if (value is Float && !value.isFinite()) JsonNull else JsonPrimitive(value)

        private fun pair(values: List<Double?>): JsonElement =
            if (values.any { it == null }) JsonNull else buildJsonArray { values.forEach { add(it) } }
    }
}
