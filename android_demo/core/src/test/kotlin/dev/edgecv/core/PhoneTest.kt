package dev.edgecv.core

import org.junit.jupiter.api.AfterEach
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertTrue
import java.nio.ByteBuffer
import java.util.concurrent.ConcurrentLinkedQueue

/** Sessions with a fake runtime: its delegates can be missing or fail, and its model predicts the brightest channel. */
abstract class PhoneTest {
    private val threads = ConcurrentLinkedQueue<Thread>()
    protected val open = ConcurrentLinkedQueue<Engine>()

    /** @param missing delegates that cannot be opened; @param failing delegates that fail when they run. */
    protected inner class Phone(
        val missing: Set<Delegate> = emptySet(),
        val failing: Set<Delegate> = emptySet(),
        val shape: List<Int> = listOf(1, 2, 2, 3),
        val running: () -> Unit = {},
    ) : Runtime {
        val seen = mutableListOf<Byte>()

        override fun open(model: ByteBuffer, settings: Settings): Engine {
            threads += Thread.currentThread()
            if (settings.delegate in missing) throw DelegateError("this device has no ${settings.delegate.label} delegate")
            return object : Engine {
                override val runtime = "phone ${settings.delegate.label}"
                override val input = Tensor(shape, Type.UINT8, 1f, 0)
                override val output = Tensor(listOf(1, 3), Type.UINT8, 0.1f, 0)

                init {
                    open += this
                }

                override fun run(input: ByteBuffer, output: ByteBuffer) {
                    threads += Thread.currentThread()
                    running()
                    if (settings.delegate in failing) throw DelegateError("${settings.delegate.label} failed")
                    for (c in 0 until 3) output.put(c, input.get(c))
                    for (i in 0 until this.input.bytes) seen += input.get(i)
                }

                override fun close() {
                    threads += Thread.currentThread()
                    open -= this
                }
            }
        }
    }

    protected class Model(override val file: String, private val sidecar: String) : ModelSource {
        override fun content(): ByteBuffer = ByteBuffer.wrap(byteArrayOf(12, 0, 0, 0, 84, 70, 76, 51, 4, 0, 4, 0, 4, 0, 0, 0))

        override fun sidecar() = sidecar
    }

    protected val colours = Model("colours.tflite", record())

    protected fun record(size: Int = 2, labels: String = """["red", "green", "blue"]""", scheme: String = "uint8") =
        """{"name": "colours", "scheme": "$scheme", "labels": $labels, "preprocessing": {"image_size": $size}, "input": {"pixel_offset": 0}}"""

    protected val green = Photo(5, 3, ByteArray(45) { if (it % 3 == 1) -1 else 0 })
    protected val states = ConcurrentLinkedQueue<State>()
    private val sessions = mutableListOf<Session>()

    protected fun session(runtime: Runtime, delegate: Delegate = Delegate.XNNPACK) =
        Session(runtime, Settings(1, delegate)) { states += it }.also { sessions += it }

    @AfterEach
    fun `one thread uses the engines, and all are closed`() {
        sessions.forEach { it.close() }
        assertTrue(sessions.all { it.awaitClosed(30) })
        assertTrue(open.isEmpty())
        assertTrue(threads.distinct().size <= sessions.size)
        assertFalse(Thread.currentThread() in threads)
    }

    protected object NoMachine : Machine {
        override val host = "a test"
        override val description = mapOf("board" to "none")

        override fun temperatureC(): Double? = null

        override fun clockMhz(): Double? = null

        override fun memory(): Memory? = null
    }
}
