package dev.edgecv.core

import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNotNull
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.nio.ByteBuffer
import java.util.concurrent.ConcurrentLinkedQueue
import java.util.concurrent.CountDownLatch
import java.util.concurrent.atomic.AtomicInteger

class SessionTest : PhoneTest() {
    @Test
    fun `a grey rectangle gets the luma of the photo`() {
        val phone = Phone(shape = listOf(1, 2, 3, 1))
        val session = session(phone)
        session.open(Model("grey.tflite", """{"preprocessing": {"height": 2, "width": 3, "channels": 1}, "input": {"pixel_offset": 0}}"""))
        session.await()
        session.offer { green }
        session.await()
        assertNull(session.state.error)
        assertEquals(List(6) { 150.toByte() }, phone.seen)
        assertEquals(3, session.state.model!!.predictions.size)
    }

    @Test
    fun `a photo is classified, and its times add up`() {
        val session = session(Phone())
        session.open(colours)
        assertTrue(session.offer { green })
        session.await()
        val state = session.state.model!!
        assertEquals("green", state.predictions.first().label)
        assertEquals(1.0, state.predictions.sumOf { it.probability }, 1e-9)
        assertEquals("phone XNNPACK", state.runtime)
        assertNull(state.fallback)
        val timing = state.timings.last.single()
        assertTrue(timing.totalMs >= timing.preprocessMs + timing.inferenceMs)
        assertEquals(listOf(Notice.OPENING, null, null), states.map { it.notice })
    }

    @Test
    fun `a missing GPU falls back to XNNPACK with the reason`() {
        val session = session(Phone(missing = setOf(Delegate.GPU)), Delegate.GPU)
        session.open(colours)
        session.await()
        assertEquals("phone XNNPACK", session.state.model!!.runtime)
        assertEquals("this device has no GPU delegate", session.state.model!!.fallback)
        assertEquals(Delegate.GPU, session.state.settings.delegate)
    }

    @Test
    fun `a delegate that fails during inference is replaced, and the next photo is classified`() {
        val session = session(Phone(failing = setOf(Delegate.NNAPI)), Delegate.NNAPI)
        session.open(colours)
        session.offer { green }
        session.await()
        assertEquals("NNAPI failed", session.state.model!!.fallback)
        session.offer { green }
        session.await()
        assertEquals("green", session.state.model!!.predictions.first().label)
        assertEquals("phone XNNPACK", session.state.model!!.runtime)
    }

    @Test
    fun `if no delegate runs, the state has the reason`() {
        val session = session(Phone(missing = Delegate.entries.toSet()), Delegate.GPU)
        session.open(colours)
        session.await()
        assertEquals("this device has no GPU delegate", session.state.error)
        assertNull(session.state.model!!.runtime)
    }

    @Test
    fun `a model that does not match its record is rejected with a message`() {
        val session = session(Phone())
        for ((record, words) in listOf(
            record(size = 7) to "takes [1, 2, 2, 3], but its record declares [1, 7, 7, 3]",
            record(labels = """["red"]""") to "has 3 outputs, but 1 labels",
            "{}" to "does not declare its preprocessing",
            "{" to "not valid JSON",
        )) {
            session.open(Model("odd.tflite", record))
            session.await()
            assertTrue(words in session.state.error!!, session.state.error)
            session.offer { green }
            session.await()
            assertTrue(session.state.model!!.predictions.isEmpty())
        }
        session.open(colours)
        session.offer { green }
        session.await()
        assertEquals("green", session.state.model!!.predictions.first().label)
        assertNull(session.state.error)
    }

    @Test
    fun `a camera frame is dropped while another one is classified`() {
        val session = session(Phone())
        session.open(colours)
        val began = CountDownLatch(1)
        val release = CountDownLatch(1)
        assertTrue(session.offer { began.countDown(); release.await(); green })
        began.await()
        assertFalse(session.isFree)
        assertFalse(session.offer { throw AssertionError("it was to be dropped") })
        session.classify { green } // a chosen photo is not
        release.countDown()
        session.await()
        assertTrue(session.isFree)
        assertEquals(2, session.state.model!!.timings.last.size)
    }

    @Test
    fun `a photo that cannot be read keeps the model open`() {
        val session = session(Phone())
        session.open(colours)
        session.offer { throw InputError("The photo is broken.") }
        session.await()
        assertEquals("The photo is broken.", session.state.error)
        session.offer { green }
        session.await()
        assertEquals("green", session.state.model!!.predictions.first().label)
    }

    @Test
    fun `new settings reopen the same model and reset the times`() {
        val session = session(Phone())
        session.open(colours)
        session.offer { green }
        session.changeSettings(Settings(4, Delegate.CPU))
        session.await()
        assertEquals("phone CPU", session.state.model!!.runtime)
        assertTrue(session.state.model!!.timings.last.isEmpty())
        assertEquals(1, open.size)
    }

    @Test
    fun `settings without an open model apply to the first model`() {
        val session = session(Phone())
        session.changeSettings(Settings(2, Delegate.CPU))
        session.open(colours)
        session.await()
        assertEquals("phone CPU", session.state.model!!.runtime)
    }

    private val request = BenchmarkRequest("app", 7, 1, listOf(1), Delegate.XNNPACK)

    @Test
    fun `the result of a benchmark stays while pictures are classified and settings change, until it is dismissed`() {
        val session = session(Phone())
        session.open(colours)
        val kept = ConcurrentLinkedQueue<JsonObject>()
        session.measure(Benchmark(Phone(), NoMachine), request) { kept += it }
        session.offer { green }
        session.changeSettings(Settings(2, Delegate.CPU))
        session.await()
        val measured = session.state.measured!!
        assertEquals(listOf(measured.result), kept.toList())
        assertEquals("colours.tflite", measured.file)
        assertNull(session.state.notice)
        session.dismissMeasured()
        session.await()
        assertNull(session.state.measured)
    }

    @Test
    fun `the failure of a benchmark is its result, and the model opens again`() {
        val session = session(Phone())
        session.open(colours)
        for ((runtime, words) in listOf(
            Phone(missing = setOf(Delegate.XNNPACK)) to "no XNNPACK delegate",
            Phone(running = { throw IllegalStateException("the driver broke") }) to "the driver broke",
            Phone(running = { throw OutOfMemoryError() }) to "too little memory",
        )) {
            session.measure(Benchmark(runtime, NoMachine), request) {}
            session.offer { green }
            session.await()
            assertTrue(words in session.state.measured!!.result.getValue("error").jsonPrimitive.content)
            assertEquals("green", session.state.model!!.predictions.first().label)
        }
    }

    @Test
    fun `a result that cannot be stored is shown all the same`() {
        val session = session(Phone())
        session.open(colours)
        session.measure(Benchmark(Phone(), NoMachine), request) { throw InputError("measurement.json cannot be written.") }
        session.await()
        assertNotNull(session.state.measured)
        assertEquals("measurement.json cannot be written.", session.state.error)
    }

    @Test
    fun `closing does not wait, and a benchmark stops before its next inference`() {
        val running = CountDownLatch(1)
        val release = CountDownLatch(1)
        val runs = AtomicInteger()
        val slow = Phone(running = { runs.incrementAndGet(); running.countDown(); release.await() })
        val session = session(Phone())
        session.open(colours)
        session.measure(Benchmark(slow, NoMachine), request.copy(runs = 1000)) {}
        running.await()
        val start = System.nanoTime()
        session.close()
        assertTrue(System.nanoTime() - start < 500_000_000)
        session.open(colours) // all later calls do nothing
        assertFalse(session.isFree)
        release.countDown()
        assertTrue(session.awaitClosed(30))
        assertEquals(1, runs.get())
    }

    @Test
    fun `a cancelled benchmark leaves no result, and the model opens again`() {
        val running = CountDownLatch(1)
        val release = CountDownLatch(1)
        val session = session(Phone())
        session.open(colours)
        val slow = Phone(running = { running.countDown(); release.await() })
        session.measure(Benchmark(slow, NoMachine), request.copy(runs = 1000)) { throw AssertionError("there is no result") }
        running.await()
        session.cancel()
        release.countDown()
        session.await()
        assertNull(session.state.measured)
        assertNull(session.state.error)
        assertEquals("phone XNNPACK", session.state.model!!.runtime)
    }

    @Test
    fun `where XNNPACK refuses a model it runs without, with the reason`() {
        val session = session(Phone(missing = setOf(Delegate.XNNPACK)))
        session.open(colours)
        session.await()
        assertEquals("phone CPU", session.state.model!!.runtime)
        assertEquals("this device has no XNNPACK delegate", session.state.model!!.fallback)
    }

    @Test
    fun `a delegate chosen after a failure opens the model`() {
        val session = session(Phone(missing = setOf(Delegate.XNNPACK, Delegate.CPU)))
        session.open(colours)
        session.await()
        assertNotNull(session.state.error)
        session.changeSettings(Settings(1, Delegate.GPU))
        session.await()
        assertNull(session.state.error)
        assertEquals("phone GPU", session.state.model!!.runtime)
    }

    @Test
    fun `the picture during which delegates fail is classified by the next one that runs`() {
        val session = session(Phone(failing = setOf(Delegate.GPU, Delegate.XNNPACK)), Delegate.GPU)
        session.open(colours)
        session.classify { green }
        session.await()
        assertEquals("green", session.state.model!!.predictions.first().label)
        assertEquals("phone CPU", session.state.model!!.runtime)
        assertEquals("GPU failed", session.state.model!!.fallback)
    }

    @Test
    fun `an exception on the session's thread is shown, and the session goes on`() {
        val session = session(Phone())
        session.open(colours)
        session.classify { throw NegativeArraySizeException("-1") }
        session.await()
        assertEquals("This failed: -1", session.state.error)
        session.open(object : ModelSource by colours {
            override fun content(): ByteBuffer = throw IllegalStateException("the provider is gone")
        })
        session.await()
        assertEquals("This failed: the provider is gone", session.state.error)
        session.open(colours)
        session.offer { green }
        session.await()
        assertNull(session.state.error)
        assertEquals("green", session.state.model!!.predictions.first().label)
    }

    @Test
    fun `two models classify each picture, and their agreement is counted`() {
        val session = session(Phone())
        session.open(colours)
        session.compareWith(Model("other.tflite", record(labels = """["red", "gruen", "blue"]""")))
        val red = Photo(5, 3, ByteArray(45) { if (it % 3 == 0) -1 else 0 })
        for (photo in listOf(green, red, red)) session.classify { photo }
        session.await()
        val state = session.state
        assertEquals(listOf("red", "red"), listOf(state.model, state.second).map { it!!.predictions.first().label })
        assertEquals(listOf(false, true, true), state.agreement.last)
        assertEquals(2, state.agreement.equal)
        assertEquals(3, state.second!!.timings.last.size)
        session.compareWith(null)
        session.await()
        assertNull(session.state.second)
        assertEquals(1, open.size)
    }

    @Test
    fun `a second model that cannot be opened leaves the first one working`() {
        val session = session(Phone())
        session.open(colours)
        session.compareWith(Model("broken.tflite", "{"))
        session.await()
        assertTrue("not valid JSON" in session.state.error!!)
        session.classify { green }
        session.await()
        assertEquals("green", session.state.model!!.predictions.first().label)
        assertNull(session.state.second)
    }
}
