package dev.edgecv.demo

import dev.edgecv.core.Benchmark
import dev.edgecv.core.BenchmarkRequest
import dev.edgecv.core.Classifier
import dev.edgecv.core.Delegate
import dev.edgecv.core.InputError
import dev.edgecv.core.InputWriter
import dev.edgecv.core.LinuxMachine
import dev.edgecv.core.Machine
import dev.edgecv.core.Memory
import dev.edgecv.core.ModelSource
import dev.edgecv.core.Record
import dev.edgecv.core.Session
import dev.edgecv.core.Settings
import dev.edgecv.core.State
import dev.edgecv.core.TfliteFile
import dev.edgecv.core.Type
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.double
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import kotlinx.serialization.json.long
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNotNull
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.BeforeAll
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.EnumSource
import org.junit.jupiter.params.provider.ValueSource
import java.io.File
import java.nio.ByteBuffer
import java.security.MessageDigest
import kotlin.math.abs

/** The app's classes on the shipped model files, with the TensorFlow Lite library of the app's AAR. */
class TfliteRuntimeTest {
    @ParameterizedTest
    @ValueSource(strings = ["int8", "float32"])
    fun `the input tensor has the same bytes as in Python`(scheme: String) {
        val model = Shipped.model(scheme)
        val record = Record.read(model, Shipped.content(model), Shipped.sidecar(model))
        TfliteRuntime.open(Shipped.content(model), XNNPACK).use { engine ->
            val writer = InputWriter(engine.input, record.preprocessing!!, record.input.pixelOffset)
            val buffer = engine.input.buffer()
            for ((photo, expected) in Shipped.photos.zip(Shipped.predictions(model))) {
                writer.write(record.preprocessing!!.cropAndResize(photo), buffer)
                buffer.rewind()
                val digest = MessageDigest.getInstance("SHA-256").apply { update(buffer) }.digest()
                assertEquals(expected.getValue("input_sha256").jsonPrimitive.content, digest.joinToString("") { "%02x".format(it) })
            }
        }
    }

    @ParameterizedTest
    @ValueSource(strings = ["int8", "float32"])
    fun `the top five classes and their probabilities equal Python`(scheme: String) {
        val model = Shipped.model(scheme)
        Classifier.open(model, Shipped.content(model), Shipped.sidecar(model), TfliteRuntime, XNNPACK).use { classifier ->
            for ((n, photo) in Shipped.photos.withIndex()) {
                val expected = Shipped.predictions(model)[n]
                val top = expected.getValue("top").jsonArray.map { it.jsonPrimitive.int }
                val probabilities = expected.getValue("probabilities").jsonArray.map { it.jsonPrimitive.double }
                val (predictions, _) = classifier.classify(photo)
                assertEquals(top, predictions.map { it.index }, "photo $n of $model")
                for ((prediction, probability) in predictions.zip(probabilities)) assertTrue(abs(prediction.probability - probability) < 1e-3)
            }
        }
    }

    @ParameterizedTest
    @ValueSource(strings = ["small_int16x8.tflite", "small_int16.tflite"])
    fun `models with 16-bit activations have Python's inputs and classes`(model: String) {
        val cpu = Settings(1, Delegate.CPU)
        Classifier.open(model, Shipped.content(model), Shipped.sidecar(model), TfliteRuntime, cpu).use { classifier ->
            for ((n, photo) in Shipped.photos.withIndex()) {
                val expected = Shipped.predictions(model)[n]
                val probabilities = expected.getValue("probabilities").jsonArray.map { it.jsonPrimitive.double }
                val predictions = classifier.classify(photo).first
                for ((prediction, probability) in predictions.zip(probabilities)) assertTrue(abs(prediction.probability - probability) < 1e-3)
            }
        }
        val record = Record.read(model, Shipped.content(model), Shipped.sidecar(model))
        TfliteRuntime.open(Shipped.content(model), cpu).use { engine ->
            assertEquals(if ("int16x8" in model) Type.FLOAT32 else Type.INT16, engine.input.type)
            val buffer = engine.input.buffer()
            InputWriter(engine.input, record.preprocessing!!, record.input.pixelOffset).write(record.preprocessing!!.cropAndResize(Shipped.photos[0]), buffer)
            val digest = MessageDigest.getInstance("SHA-256").apply { update(buffer) }.digest()
            assertEquals(Shipped.predictions(model)[0].getValue("input_sha256").jsonPrimitive.content, digest.joinToString("") { "%02x".format(it) })
        }
    }

    @Test
    fun `the embedded metadata equals the sidecar`() {
        for (model in Shipped.models) {
            val content = Shipped.content(model)
            val sidecar = Record.read(model, content, Shipped.sidecar(model))
            assertEquals(listOf(model, content.limit().toLong()), listOf(sidecar.file, sidecar.sizeBytes))
            assertEquals(sidecar.copy(file = null, sha256 = null, sizeBytes = null), Record.read(model, content, null))
        }
    }

    @Test
    fun `the standard metadata gives the same int8 inputs and labels`() {
        val model = Shipped.model("int8")
        val ours = Record.read(model, Shipped.content(model), null)
        val standard = TfliteFile(Shipped.content(model)).standardMetadata()!!
        assertEquals(ours.labels, standard.labels)
        val photo = ours.preprocessing!!.cropAndResize(Shipped.photos[0])
        TfliteRuntime.open(Shipped.content(model), XNNPACK).use { engine ->
            val (own, others) = listOf(
                InputWriter(engine.input, ours.preprocessing!!, ours.input.pixelOffset),
                InputWriter(engine.input, ours.preprocessing!!.copy(mean = standard.mean!!, std = standard.std!!), null),
            ).map { writer -> engine.input.buffer().also { writer.write(photo, it) } }
            assertEquals(own.rewind(), others.rewind())
        }
    }

    @ParameterizedTest
    @ValueSource(ints = [1, 2])
    fun `without XNNPACK the float model predicts the same`(threads: Int) {
        val model = Shipped.model("float32")
        val settings = Settings(threads, Delegate.CPU)
        Classifier.open(model, Shipped.content(model), null, TfliteRuntime, settings).use { classifier ->
            assertTrue(classifier.runtime.endsWith("CPU"), classifier.runtime)
            for ((n, photo) in Shipped.photos.withIndex().take(5)) {
                val top = Shipped.predictions(model)[n].getValue("top").jsonArray.first().jsonPrimitive.int
                assertEquals(top, classifier.classify(photo).first.first().index)
            }
        }
    }

    @ParameterizedTest
    @EnumSource(Delegate::class, names = ["GPU", "NNAPI"])
    fun `without that delegate the model runs on XNNPACK, with the reason`(delegate: Delegate) {
        val states = mutableListOf<State>()
        Session(TfliteRuntime, Settings(1, delegate)) { states += it }.use { session ->
            session.open(Shipped.source(Shipped.model("int8")))
            session.offer { Shipped.photos[0] }
            session.await()
            assertTrue(session.state.model!!.runtime!!.endsWith("XNNPACK"), session.state.toString())
            assertTrue(delegate.label in session.state.model!!.fallback!!, session.state.model!!.fallback)
            assertEquals(5, session.state.model!!.predictions.size)
        }
    }

    @Test
    fun `a broken file is rejected with a message, and the next model opens`() {
        val whole = Shipped.content(Shipped.model("int8"))
        Session(TfliteRuntime, XNNPACK) { }.use { session ->
            for (bytes in listOf(0, 7, 100, 5000, whole.limit() / 2)) {
                session.open(source("cut.tflite", whole, bytes))
                session.await()
                assertNotNull(session.state.error, "$bytes bytes")
                assertFalse('\n' in session.state.error!!)
                assertNull(session.state.model!!.runtime)
            }
            session.open(Shipped.source(Shipped.model("int8"), withSidecar = false))
            session.offer { Shipped.photos[0] }
            session.await()
            assertNull(session.state.error)
            assertEquals(5, session.state.model!!.predictions.size)
        }
    }

    @Test
    fun `the sidecar of the float file is rejected for the int8 file`() {
        val error = assertThrows(InputError::class.java) {
            Record.read("int8.tflite", Shipped.content(Shipped.model("int8")), Shipped.sidecar(Shipped.model("float32")))
        }
        assertTrue("belongs to another file" in error.message!!)
    }

    @ParameterizedTest
    @ValueSource(strings = ["int8", "float32"])
    fun `a benchmark writes the measurement and the outputs for golden inputs`(scheme: String, @TempDir folder: File) {
        val model = Shipped.model(scheme)
        Shipped.file(model).copyTo(File(folder, "model.tflite"))
        val record = Record.read(model, Shipped.content(model), null)
        TfliteRuntime.open(Shipped.content(model), XNNPACK).use { engine ->
            val writer = InputWriter(engine.input, record.preprocessing!!, record.input.pixelOffset)
            val golden = ByteArray(3 * engine.input.bytes)
            for (n in 0 until 3) {
                val buffer = engine.input.buffer()
                writer.write(record.preprocessing!!.cropAndResize(Shipped.photos[n]), buffer)
                buffer.rewind()
                buffer.get(golden, n * engine.input.bytes, engine.input.bytes)
            }
            File(folder, "golden.bin").writeBytes(golden)
        }
        Benchmark(TfliteRuntime, Here).measureFolder(folder, BenchmarkRequest("x", 5, 1, listOf(1, 2), Delegate.XNNPACK))
        val written = Json.parseToJsonElement(File(folder, "measurement.json").readText()).jsonObject
        assertEquals(setOf("measurement.json", "model.tflite", "golden.bin"), folder.list()!!.toSet())
        assertEquals("measurement", written.getValue("kind").jsonPrimitive.content)
        assertEquals(Record.sha256(Shipped.content(model)), written.getValue("artifact").jsonObject.getValue("sha256").jsonPrimitive.content)
        val latency = written.getValue("latency").jsonArray.map { it.jsonObject }
        assertEquals(listOf(1, 2), latency.map { it.getValue("threads").jsonPrimitive.int })
        for (row in latency) {
            assertEquals(5, row.getValue("samples_ms").jsonArray.size)
            assertTrue(row.getValue("p50_ms").jsonPrimitive.double > 0)
            assertEquals("a test", row.getValue("host").jsonPrimitive.content)
            assertTrue(row.getValue("runtime").jsonPrimitive.content.matches(Regex("tensorflow-lite 2\\.[0-9.]+ XNNPACK")))
        }
        assertTrue(written.getValue("peak_memory_bytes").jsonPrimitive.long > 0)
        val golden = written.getValue("golden").jsonObject
        assertEquals(3, golden.getValue("images").jsonPrimitive.int)
        golden.getValue("outputs").jsonArray.forEachIndexed { n, outputs ->
            val stored = outputs.jsonArray.map { it.jsonPrimitive.double }
            assertEquals(1000, stored.size)
            val top = Shipped.predictions(model)[n].getValue("top").jsonArray.first().jsonPrimitive.int
            assertEquals(top, stored.indexOf(stored.max()))
        }
    }

    @Test
    fun `a failed benchmark writes its reason in one line`(@TempDir folder: File) {
        fun error(delegate: Delegate = Delegate.XNNPACK): String {
            Benchmark(TfliteRuntime, Here).measureFolder(folder, BenchmarkRequest("x", 2, 0, listOf(1), delegate))
            val written = Json.parseToJsonElement(File(folder, "measurement.json").readText()).jsonObject
            assertEquals(setOf("schema", "kind", "error"), written.keys)
            return written.getValue("error").jsonPrimitive.content
        }
        assertTrue("model.tflite" in error())
        File(folder, "model.tflite").writeText("not a model")
        assertTrue("not a TFLite file" in error())
        Shipped.file(Shipped.model("int8")).copyTo(File(folder, "model.tflite"), overwrite = true)
        assertTrue("GPU" in error(Delegate.GPU)) // a measurement never falls back to another delegate
        File(folder, "golden.bin").writeText("short")
        assertTrue("golden.bin must hold inputs of 150528 bytes" in error())
    }

    private fun source(name: String, whole: ByteBuffer, bytes: Int) = object : ModelSource {
        override val file = name

        override fun content(): ByteBuffer {
            val part = ByteBuffer.allocateDirect(bytes)
            part.put(whole.duplicate().apply { rewind(); limit(bytes) })
            part.rewind()
            return part
        }

        override fun sidecar() = null
    }

    private object Here : Machine {
        override val host = "a test"
        override val description = emptyMap<String, String>()

        override fun temperatureC(): Double? = null

        override fun clockMhz(): Double? = null

        override fun memory(): Memory? = LinuxMachine().memory()
    }

    companion object {
        val XNNPACK = Settings(threads = 1, delegate = Delegate.XNNPACK)

        @BeforeAll
        @JvmStatic
        fun load() = Shipped.loadDesktopLibrary()
    }
}
