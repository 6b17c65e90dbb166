package dev.edgecv.demo

import android.annotation.SuppressLint
import android.content.Context
import android.graphics.ImageFormat
import android.graphics.Matrix
import android.graphics.SurfaceTexture
import android.hardware.camera2.CameraAccessException
import android.hardware.camera2.CameraCaptureSession
import android.hardware.camera2.CameraCharacteristics
import android.hardware.camera2.CameraDevice
import android.hardware.camera2.CameraManager
import android.hardware.camera2.CaptureRequest
import android.media.Image
import android.media.ImageReader
import android.os.Handler
import android.os.HandlerThread
import android.view.Surface
import dev.edgecv.core.CameraFrame
import dev.edgecv.core.reason

/**
 * The live camera with Camera2: a preview, and frames for the model.
 *
 * @param onFrame called with each frame and the rotation that makes it upright, on the camera's thread; the image is closed
 *     afterwards.
 * @param onFailure called with the reason if the camera stops unexpectedly, on any thread.
 * @param surfaceOf makes the surface of the preview.
 */
class Camera(
    context: Context,
    private val onFrame: (Image, Int) -> Unit,
    private val onFailure: (String) -> Unit,
    private val surfaceOf: (SurfaceTexture) -> Surface = ::Surface,
) {
    private val manager = context.getSystemService(Context.CAMERA_SERVICE) as CameraManager
    private val id: String? = quietly {
        val ids = manager.cameraIdList
        ids.firstOrNull { facing(it) == CameraCharacteristics.LENS_FACING_BACK } ?: ids.firstOrNull()
    }

    // Opening is asynchronous; callbacks of an opening that stop() cancelled are ignored.
    @Volatile
    private var opening: Opened? = null

    val exists get() = id != null

    /** The display's rotation in degrees; may change while the camera runs. */
    @Volatile
    var displayDegrees = 0

    private fun facing(id: String) = manager.getCameraCharacteristics(id).get(CameraCharacteristics.LENS_FACING)

    /**
     * Opens the camera; the app must have the camera permission.
     *
     * @param texture shows the preview.
     * @param shortSide minimum short side of the frames, in pixels.
     * @param previewSide minimum short side of the preview, in pixels.
     */
    @SuppressLint("MissingPermission")
    fun start(texture: SurfaceTexture, shortSide: Int, previewSide: Int) {
        stop()
        val id = id ?: return
        failing {
            val characteristics = manager.getCameraCharacteristics(id)
            val map = characteristics.get(CameraCharacteristics.SCALER_STREAM_CONFIGURATION_MAP)
            val sizes = map?.getOutputSizes(ImageFormat.YUV_420_888).orEmpty().map { it.width to it.height }
            if (sizes.isEmpty()) return onFailure("it has no YUV_420_888 frames")
            val frames = CameraFrame.chooseSize(sizes, shortSide)
            val previews = map?.getOutputSizes(SurfaceTexture::class.java).orEmpty().map { it.width to it.height }
            val opened = Opened(
                texture = texture,
                frameSize = frames,
                previewSize = CameraFrame.choosePreview(previews, frames, previewSide),
                sensor = characteristics.get(CameraCharacteristics.SENSOR_ORIENTATION) ?: 0,
                facesUser = characteristics.get(CameraCharacteristics.LENS_FACING) == CameraCharacteristics.LENS_FACING_FRONT,
            )
            opening = opened
            manager.openCamera(id, opened, opened.handler)
        }
    }

    fun stop() {
        opening?.close()
        opening = null
    }

    /** The transform that shows the centre of the preview upright and undistorted in a view of [width] x [height]. */
    fun previewTransform(width: Int, height: Int): Matrix = opening?.previewTransform(width, height) ?: Matrix()

    private inline fun failing(work: () -> Unit) = try {
        work()
    } catch (error: CameraAccessException) {
        onFailure(error.reason())
    } catch (error: RuntimeException) { // vendors' camera services throw undocumented exceptions
        onFailure(error.reason())
    }

    /** One opening of the camera, with everything that must be released after it. */
    private inner class Opened(
        texture: SurfaceTexture,
        frameSize: Pair<Int, Int>,
        private val previewSize: Pair<Int, Int>,
        private val sensor: Int,
        private val facesUser: Boolean,
    ) : CameraDevice.StateCallback() {
        private val thread = HandlerThread("camera").apply { start() }
        val handler = Handler(thread.looper)
        private val reader = ImageReader.newInstance(frameSize.first, frameSize.second, ImageFormat.YUV_420_888, 2)
        private val preview: Surface
        private var device: CameraDevice? = null // on the camera's thread

        init {
            texture.setDefaultBufferSize(previewSize.first, previewSize.second)
            preview = surfaceOf(texture)
            reader.setOnImageAvailableListener({ frames ->
                failing {
                    frames.acquireLatestImage()?.use { onFrame(it, CameraFrame.degreesUpright(sensor, displayDegrees, facesUser)) }
                }
            }, handler)
        }

        fun close() {
            handler.post { // after the current frame
                quietly { device?.close() }
                reader.close()
                preview.release()
                thread.quitSafely()
            }
        }

        fun previewTransform(width: Int, height: Int): Matrix {
            val turned = sensor % 180 != 0 // the view shows the frame for an unrotated display
            val naturalWidth = if (turned) previewSize.second else previewSize.first
            val naturalHeight = if (turned) previewSize.first else previewSize.second
            val rotated = displayDegrees % 180 != 0
            val shownWidth = if (rotated) naturalHeight else naturalWidth
            val shownHeight = if (rotated) naturalWidth else naturalHeight
            val scale = maxOf(width.toFloat() / shownWidth, height.toFloat() / shownHeight)
            return Matrix().apply {
                setScale(scale * naturalWidth / width, scale * naturalHeight / height, width / 2f, height / 2f)
                postRotate(-displayDegrees.toFloat(), width / 2f, height / 2f)
            }
        }

        @Suppress("DEPRECATION") // its replacement needs Android 9
        override fun onOpened(camera: CameraDevice) {
            if (opening !== this) return camera.close()
            device = camera
            failing { camera.createCaptureSession(listOf(preview, reader.surface), Configured(), handler) }
        }

        override fun onDisconnected(camera: CameraDevice) = lost(camera, "another app uses it")

        override fun onError(camera: CameraDevice, error: Int) = lost(camera, "camera error $error")

        private fun lost(camera: CameraDevice, reason: String) {
            camera.close()
            if (opening === this) onFailure(reason)
        }

        private inner class Configured : CameraCaptureSession.StateCallback() {
            override fun onConfigured(session: CameraCaptureSession): Unit = failing {
                if (opening !== this@Opened) return
                val request = session.device.createCaptureRequest(CameraDevice.TEMPLATE_PREVIEW)
                request.addTarget(preview)
                request.addTarget(reader.surface)
                request.set(CaptureRequest.CONTROL_AF_MODE, CaptureRequest.CONTROL_AF_MODE_CONTINUOUS_PICTURE)
                session.setRepeatingRequest(request.build(), null, handler)
            }

            override fun onConfigureFailed(session: CameraCaptureSession) = onFailure("it rejects this frame size")
        }
    }
}

private inline fun <T> quietly(work: () -> T): T? = try {
    work()
} catch (_: CameraAccessException) {
    null
} catch (_: RuntimeException) {
    null
}
